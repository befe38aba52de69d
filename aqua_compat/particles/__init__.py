"""The door for unmodified Aqua: particles, scripts and the builtins that they call.

Needs the extra `aqua-registry[aqua]` and the interpreter that `aqua-registry aqua install` installs; without `--aqua` a
node imports nothing of this.

 protocol.py, links.py   particles come and go: streams of clients and of original nodes, links between our own
 reception.py            signature, expiry and bounds; one actor per particle
 actor.py                one particle on this node, one step of the interpreter after the other
 pool.py                 steps in threads, fair between those who sent particles
 interpreter.py          one instance of the interpreter; layout.py, steps.py: what goes in and comes out
 forwarding.py           to whom a particle goes next
 builtins.py, registry_calls.py, signing_calls.py    what scripts may call, backed by what the native API uses
"""
