"""Remedies for faults of py-libp2p 0.8.1, each in a module that tells the fault and when it can go.

Nothing here is about this network; all of it goes through libp2p's public API and attributes, but for `direct_pipes`,
which does without where they changed, and the WebSocket's stream in `closed_connections`. When libp2p is updated,
remove one module at a time and see whether the regression test named after its fault still passes.
"""
