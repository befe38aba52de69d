// Aqua to JavaScript: greeters.aqua becomes greeters.js.
import { compileFromPath } from '@fluencelabs/aqua-api'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'

const { errors, generatedSources } = await compileFromPath({
  filePath: join(import.meta.dirname, 'greeters.aqua'),
  imports: { '/': { '': [join(import.meta.dirname, 'node_modules')] } },
  targetType: 'js'
})
if (errors.length > 0) throw new Error(errors.join('\n'))
await writeFile(join(import.meta.dirname, 'greeters.js'), generatedSources[0].jsSource)
