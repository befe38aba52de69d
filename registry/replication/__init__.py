"""Keeping replicas alike: they compare digests per resource and send only what differs."""

from registry.replication.replication import Replication, ReplicationStatus

__all__ = ["Replication", "ReplicationStatus"]
