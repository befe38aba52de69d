"""Serves unmodified Aqua clients: particles, their scripts, and the services that scripts call.

Needs the extra `aqua-registry[aqua]` and the interpreter that `aqua-registry aqua install` installs; without `--aqua` a
node imports nothing of this but its settings.

 enabling, server    starts all of it on a node whose settings ask for it
 inbound/            receiver reads particles from streams and links, dispatcher checks each and finds its actor
 engine/             actor: one particle on this node, step after step; pool: steps in threads; interpreter: one
                     instance of the original's, with its memory (abi), steps (steps) and way in (trampoline)
 host_calls/         what scripts may call here, answered by what the native API uses
 outbound/           sends a particle to its next peers
 fairness/           shares of time and of places for the peers that brought particles; their shares of memory are
                     overlay.limits.fair_quota's
 particle            a particle, its signature and its form on the wire
"""
