"""The original's builtin services, under their names on every peer: `await aqua.on(peer).call("op", "concat", a, b)`.

Interfaces: aqua-lib 0.9.0 and trust-graph 0.4.10.
"""
