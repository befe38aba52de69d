"""Finds peers: positions in the keyspace, lookups, joining the network, and where peers can be reached."""
