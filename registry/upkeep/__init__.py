"""Runs what a node does by the clock: clearing expired records, replicating, renewing."""
