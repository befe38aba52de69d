"""Keeps replicas alike: they compare digests per resource and send only what differs."""

from registry.replication.scheduler import ReplicationScheduler, ReplicationStatus

__all__ = ["ReplicationScheduler", "ReplicationStatus"]
