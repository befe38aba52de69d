// Serves a greeter behind a node. Usage: node provider.mjs ADDRESS GREETING [RESOURCE_ID]
// Without a resource id it makes a resource. Prints the resource's id; Ctrl-C ends it.
import { Fluence } from '@fluencelabs/js-client'
import { createResource, registerGreeter, registerService, unregisterService } from './greeters.js'

const [address, greeting, given] = process.argv.slice(2)
await Fluence.connect(address)
const me = Fluence.getClient().getPeerId()

registerGreeter({ greet: (name) => `${greeting}, ${name}` }) // calls that reach this peer are answered from now on

const [resourceId, creating] = given === undefined ? await createResource('greeters') : [given, []]
if (resourceId === null) throw new Error(creating.join('; '))
const [registered, registering] = await registerService(resourceId, greeting, me, 'greeter')
if (!registered) throw new Error(registering.join('; '))
console.log(resourceId)

for (const signal of ['SIGINT', 'SIGTERM']) {
  process.removeAllListeners(signal) // the client's, which would end its interpreter first
  process.once(signal, async () => {
    const [gone, errors] = await unregisterService(resourceId, me)
    if (!gone) console.error(errors.join('; '))
    await Fluence.disconnect()
    process.exit(0)
  })
}
