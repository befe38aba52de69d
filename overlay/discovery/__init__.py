"""Finds peers: positions in the keyspace, lookups, joining the network, and where peers can be reached.

`lookup` is what nodes run. `home`, `recursive_machine`, `iterative`, `regions` and `size_estimate` are the rules of networks larger
than its own: pure, run by the simulation of the overlay, and not yet by nodes.
"""
