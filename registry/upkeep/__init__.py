"""What a node does by the clock: collecting, replicating, renewing."""
