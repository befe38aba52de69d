"""Calls between peers: one long-lived stream per pair, many requests in flight, both directions."""
