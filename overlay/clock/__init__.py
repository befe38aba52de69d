"""Compares this machine's clock with those of peers that it chose to link with."""
