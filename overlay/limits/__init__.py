"""Bounds on what peers can take of this one."""
