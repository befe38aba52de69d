// The original JS client as a peer that a test tells what to do. Usage: node peer.mjs COMPILED.js RELAY_MULTIADDR
// Prints a JSON line with its peer id, then one for each line on stdin:
//   {"id": 1, "call": "createResource", "args": ["label"], "ttl": 20000}   ->  {"id": 1, "result": ...} or {"id": 1, "error": ...}
//   {"id": 2, "serve": "greeter", "as": "Hello"}                           ->  {"id": 2, "result": null}
//   {"id": 3, "serve": "greeter", "as": null}                 the same, but a call of it is never answered
// A call of a served greeter is told by {"called": NAME}, a greeting that this peer hears by {"heard": GREETING}.
import { createClient } from '@fluencelabs/js-client'
import { EventEmitter } from 'node:events'
import { createInterface } from 'node:readline'
import { pathToFileURL } from 'node:url'

EventEmitter.defaultMaxListeners = 0 // the client's worker has one for each call under way
const [compiled, relay] = process.argv.slice(2)
const aqua = await import(pathToFileURL(compiled))
const say = (what) => process.stdout.write(JSON.stringify(what) + '\n')
const told = (error) => error instanceof Error ? `${error.constructor.name}: ${error.message}` : error

const peer = await createClient(relay)
aqua.registerListener(peer, { hear: (greeting) => { say({ heard: greeting }) } })
say({ peer_id: peer.getPeerId() })

const obey = async ({ call, args, ttl, serve, as }) => {
  if (call !== undefined) return await aqua[call](peer, ...args, { ttl: ttl ?? 20000 })
  aqua.registerGreeter(peer, serve, {
    greet: (name) => {
      say({ called: name })
      return as === null ? new Promise(() => {}) : `${as}, ${name}`
    }
  })
  return null
}
const lines = createInterface({ input: process.stdin })
lines.on('line', (line) => {
  const command = JSON.parse(line)
  obey(command).then(
    (result) => say({ id: command.id, result }),
    (error) => say({ id: command.id, error: told(error) })
  )
})
lines.on('close', async () => {
  await peer.disconnect()
  process.exit(0)
})
