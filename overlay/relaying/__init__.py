"""Calls on a peer through another one, for peers that can't be dialled (the original's `on peer via relay`).

The two peers agree on a key through the relay, each signing its part, and seal requests and answers with it. The called
peer learns who calls; the relay can withhold or delay, but neither read, forge, alter nor repeat.
"""
