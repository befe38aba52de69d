// Calls every greeter on a resource. Usage: node caller.mjs ADDRESS RESOURCE_ID NAME [HOW_MANY]
import { Fluence } from '@fluencelabs/js-client'
import { greetAll } from './greeters.js'

const [address, resourceId, name, count] = process.argv.slice(2)
await Fluence.connect(address)
for (const greeting of await greetAll(resourceId, name, Number(count ?? 1), { ttl: 20000 })) console.log(greeting)
await Fluence.disconnect()
process.exit(0)
