// A js-libp2p peer in a resource's topic. Usage: node watcher.mjs MULTIADDR RESOURCE_ID
// Prints a JSON line for each announcement; each line on stdin has it publish garbage.
if (!Promise.withResolvers) { // Node 20
  Promise.withResolvers = () => {
    const parts = {}
    parts.promise = new Promise((resolve, reject) => Object.assign(parts, { resolve, reject }))
    return parts
  }
}
const { createLibp2p } = await import('libp2p')
const { tcp } = await import('@libp2p/tcp')
const { noise } = await import('@chainsafe/libp2p-noise')
const { yamux } = await import('@chainsafe/libp2p-yamux')
const { identify } = await import('@libp2p/identify')
const { gossipsub } = await import('@libp2p/gossipsub')
const { multiaddr } = await import('@multiformats/multiaddr')
const { decode } = await import('cborg')
const { createInterface } = await import('node:readline')

const [address, topic] = process.argv.slice(2)
const say = (what) => process.stdout.write(JSON.stringify(what) + '\n')
const node = await createLibp2p({
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  services: { identify: identify(), pubsub: gossipsub() }
})
const pubsub = node.services.pubsub
pubsub.addEventListener('message', ({ detail }) => {
  const [anchor, state] = decode(detail.data)
  say({ topic: detail.topic, key: decode(anchor).map(shown), state: decode(state).map(shown) })
})
const shown = (field) => field instanceof Uint8Array ? `${field.length} bytes` : Array.isArray(field) ? field.map(shown) : field
pubsub.subscribe(topic)
await node.dial(multiaddr(address))
const ready = setInterval(() => {
  if (pubsub.getMeshPeers(topic).length > 0) {
    clearInterval(ready)
    say({ ready: node.peerId.toString() })
  }
}, 20)
createInterface({ input: process.stdin }).on('line', async (line) => {
  await pubsub.publish(topic, new TextEncoder().encode(line))
  say({ published: line })
})
