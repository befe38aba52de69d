"""Announcements: what a replica tells at once to everybody who watches a resource.

- `announcement`: one update as bytes, and what makes such bytes invalid for everybody.
- `leases`: a replica's part: who wants to be told of what, joining topics for them, telling.
- `judging`: a receiver's part: is it true, is it news, and who here takes it.
"""
