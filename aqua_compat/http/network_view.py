"""The network as one node knows it: who is where on the ring of the keyspace, and who keeps a resource."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from overlay.discovery.keyspace import POSITION_BITS, peer_position, resource_position
from overlay.peer import OverlayPeer
from registry.model.names import OWN, Names

MOST_SHOWN: Final = 1024  # members in one view; those that the node is linked to come first


class NetworkMember(msgspec.Struct, frozen=True):
    """A member, as the node sees it. `position`: its place on the ring, from 0 to 1."""

    peer_id: str
    position: float
    linked: bool
    neighbour: bool
    """Whether it is around the node's own position, so that they keep the same resources."""
    up: bool
    """False where its witnesses say that it is down. Whom the node doesn't follow counts as up."""


class NamedOwner(msgspec.Struct, frozen=True):
    """An owner that the node has a word for."""

    name: str
    peer_id: str


class NetworkResource(msgspec.Struct, frozen=True):
    """Where a resource is on the ring, and the members that keep it, nearest first."""

    resource_id: str
    position: float
    keepers: tuple[str, ...]


class NetworkView(msgspec.Struct, frozen=True):
    """The node, the members that it knows in order of the ring, and the owners that it has words for."""

    peer_id: str
    position: float
    members: tuple[NetworkMember, ...]
    owners: tuple[NamedOwner, ...]
    resource: NetworkResource | None = None


def resource_on_ring(resource_id: str, keepers: Sequence[str]) -> NetworkResource:
    """Where a resource is."""
    return NetworkResource(resource_id, _share(resource_position(resource_id)), tuple(keepers))


def network_view(peer: OverlayPeer, names: Names, resource: NetworkResource | None) -> NetworkView:
    """The network as `peer` knows it now; asks nobody."""
    linked, neighbours = set(peer.members()), set(peer.neighbours())
    known = [*linked, *(resource.keepers if resource else ()), *neighbours, *peer.remembered_members()]
    members = [
        NetworkMember(
            peer_id=name,
            position=_share(peer_position(name)),
            linked=name in linked,
            neighbour=name in neighbours,
            up=peer.presence.state_of(name).is_up,
        )
        for name in dict.fromkeys(known)
        if name != peer.peer_id
    ][:MOST_SHOWN]
    members.sort(key=lambda member: member.position)
    owners = [NamedOwner(OWN, peer.peer_id), *(NamedOwner(*each) for each in sorted(names.aliases.items()))]
    return NetworkView(peer.peer_id, _share(peer_position(peer.peer_id)), tuple(members), tuple(owners), resource)


def _share(position: int) -> float:
    """A position as the part of the keyspace that is before it."""
    share: float = position / 2**POSITION_BITS
    return share
