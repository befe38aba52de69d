// Original JS clients that tests tell what to do, several in one process. Usage: node peer.mjs COMPILED.js
// Answers each line on stdin with a JSON line:
//   {"id": 1, "peer": 7, "open": RELAY_MULTIADDR}                          ->  {"id": 1, "result": PEER_ID}
//   {"id": 1, "peer": 7, "open": RELAY_MULTIADDR, "streams": 128}     the same, with so many streams at most either way
//   {"id": 2, "peer": 7, "call": "createResource", "args": ["label"], "ttl": 20000}
//                                                     ->  {"id": 2, "result": ...} or {"id": 2, "error": ...}
//   {"id": 3, "peer": 7, "serve": "greeter", "as": "Hello"}                ->  {"id": 3, "result": null}
//   {"id": 4, "peer": 7, "serve": "greeter", "as": null}      the same, but a call of it is never answered
//   {"id": 5, "peer": 7, "close": true}                                    ->  {"id": 5, "result": null}
// `peer` is a number of the test's choice. A call of a served greeter is told by {"peer": 7, "called": NAME}, a greeting
// that a client hears by {"peer": 7, "heard": GREETING}.
import { createClient } from '@fluencelabs/js-client'
import { EventEmitter } from 'node:events'
import { createInterface } from 'node:readline'
import { pathToFileURL } from 'node:url'

EventEmitter.defaultMaxListeners = 0 // a client's worker has one for each call under way
const aqua = await import(pathToFileURL(process.argv[2]))
const say = (what) => process.stdout.write(JSON.stringify(what) + '\n')
const told = (error) => error instanceof Error ? `${error.constructor.name}: ${error.message}` : error
const clients = new Map()

const open = async (peer, relay, streams) => {
  const limits = streams === undefined ? {} : { maxInboundStreams: streams, maxOutboundStreams: streams }
  const client = await createClient(relay, { connectionOptions: limits })
  clients.set(peer, client)
  aqua.registerListener(client, { hear: (greeting) => { say({ peer, heard: greeting }) } })
  return client.getPeerId()
}
const serve = (peer, service, greeting) => {
  aqua.registerGreeter(clients.get(peer), service, {
    greet: (name) => {
      say({ peer, called: name })
      return greeting === null ? new Promise(() => {}) : `${greeting}, ${name}`
    }
  })
  return null
}
const close = async (peer) => {
  await clients.get(peer).disconnect()
  clients.delete(peer)
  return null
}
const obey = async ({ peer, open: relay, streams, call, args, ttl, serve: service, as, close: closes }) => {
  if (relay !== undefined) return await open(peer, relay, streams)
  if (call !== undefined) return await aqua[call](clients.get(peer), ...args, { ttl: ttl ?? 20000 })
  if (closes) return await close(peer)
  return serve(peer, service, as)
}
const lines = createInterface({ input: process.stdin })
lines.on('line', (line) => {
  const command = JSON.parse(line)
  obey(command).then(
    (result) => say({ id: command.id, result: result ?? null }),
    (error) => say({ id: command.id, error: told(error) })
  )
})
lines.on('close', () => process.exit(0))
