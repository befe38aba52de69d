"""Watching resources: a snapshot first, then every change, from whichever peers are left.

- `event`: what a watcher is told.
- `view`: one resource as its watchers see it. Pure.
- `pending_events`: the events that one watcher hasn't been told yet. Pure.
- `source_machine`: who keeps a view up to date. Pure.
- `follower`: does what the source machine says.
- `watch`: one user's watch, which yields events.
- `watches`: all resources that a peer watches; it hands announcements out.
- `subscription_client`: asks for their subscriptions, many in a call.
- `subscriptions`: the other end: who wants to be told of changes to what a node stores or watches.
- `direct_announcements`: tells those with whom no topic is shared.
- `announcement`, `validator`: an update as the payload of a topic, and what becomes of it.
"""
