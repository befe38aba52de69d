"""Certificates: what one key lets another do, checked offline."""
