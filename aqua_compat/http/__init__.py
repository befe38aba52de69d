"""HTTP on a node: for whoever doesn't speak Python or libp2p, and for this machine's own commands."""
