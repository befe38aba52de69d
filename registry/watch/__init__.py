"""Watching resources: a first picture, then every change, from whichever peers are left.

- `event`: what a watcher is told.
- `watch`: one user's view, which yields events.
- `view`: one resource: what is known of it, and from whom.
- `watches`: all watched resources of a peer; batches leases, hands announcements out, answers from what it knows.
"""
