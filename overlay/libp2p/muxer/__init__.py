"""Many streams on one connection: yamux, whose windows are enforced and whose memory is bounded.

`session` is the protocol without I/O, `connection` and `stream` are what libp2p is given, `pipe` is what lies beneath.
"""
