// Compiles Aqua to JavaScript with the original's compiler. Usage: node compile.mjs SOURCE.aqua TARGET.js
import { compileFromPath } from '@fluencelabs/aqua-api'
import { writeFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const [source, target] = process.argv.slice(2)
const modules = fileURLToPath(new URL('node_modules', import.meta.url))
const { errors, generatedSources } = await compileFromPath({
  filePath: resolve(source),
  imports: { '/': { '': [modules] } },
  targetType: 'js'
})
if (errors.length > 0) {
  process.stderr.write(errors.join('\n') + '\n')
  process.exit(1)
}
await writeFile(target, generatedSources[0].jsSource)
