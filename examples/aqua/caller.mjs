// Calls every greeter on a resource. Usage: node caller.mjs ADDRESS RESOURCE_ID NAME [HOW_MANY]
import { Fluence } from '@fluencelabs/js-client'
import { greetAll } from './greeters.js'

const [address, resourceId, name, count] = process.argv.slice(2)
await Fluence.connect(address)
const [greetings, errors] = await greetAll(resourceId, name, Number(count ?? 1), { ttl: 20000 }) // alive for 20 seconds
for (const greeting of greetings) console.log(greeting)
for (const error of errors) console.error(error)
await Fluence.disconnect()
process.exit(0)
