"""Finds peers: positions in the keyspace, lookups, joining the network, and where peers can be reached.

`lookup` is what nodes run. `home`, `recursive_machine`, `iterative`, `regions` and `size_estimate` are its rules: pure,
and run by the simulation of the overlay too.
"""
