"""Calls on a peer through another one, for peers that can't be dialled: `on peer via relay`.

The ends agree on a key through the relay, each signing its part, and seal requests and answers with it: the called peer
knows who calls, and the relay can withhold or delay, but neither read, forge, alter nor repeat.
"""
