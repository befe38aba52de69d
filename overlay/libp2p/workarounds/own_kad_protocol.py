"""Faults of libp2p's Kad-DHT that concern what it speaks and what it stores.

- `KadDHT(protocol_prefix=)` isn't honoured: it always speaks `/ipfs/kad/1.0.0`. So it gets a host that translates
  that id to ours and back. Remove when the prefix is honoured.
- Its stream handler waits for ever, with 12 places in all; a peer could take them and keep them. So handlers get a
  deadline. Remove when the handler has one.
- It stores what anybody puts (50,000 values of up to 1 MiB each) and ignores `enable_values` and `enable_providers`.
  So values are refused by a validator without namespaces, and provider records go nowhere. Remove when both
  switches are honoured.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import trio
from libp2p.abc import IHost, INetStream
from libp2p.custom_types import StreamHandlerFn, TProtocol
from libp2p.kad_dht.common import PROTOCOL_ID as PUBLIC_KAD_PROTOCOL
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
from libp2p.kad_dht.provider_store import ProviderStore
from libp2p.peer.id import ID
from libp2p.records.validator import NamespacedValidator

_STREAM_DEADLINE = 20.0


class _TranslatingPeerStore:
    """A peer store whose protocols of a peer show ours under the public id."""

    def __init__(self, inner: Any, own_protocol: TProtocol) -> None:
        self._inner = inner
        self._own_protocol = own_protocol

    def get_protocols(self, peer_id: ID) -> list[str]:
        return [
            str(PUBLIC_KAD_PROTOCOL) if protocol == self._own_protocol else protocol
            for protocol in self._inner.get_protocols(peer_id)
            if protocol != str(PUBLIC_KAD_PROTOCOL)
        ]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _TranslatingHost:
    """A host on which the public Kad protocol id means ours."""

    def __init__(self, inner: IHost, own_protocol: str) -> None:
        self._inner = inner
        self._own_protocol = TProtocol(own_protocol)
        self._peerstore = _TranslatingPeerStore(inner.get_peerstore(), self._own_protocol)

    def set_stream_handler(self, protocol_id: TProtocol, stream_handler: StreamHandlerFn) -> None:
        async def with_deadline(stream: INetStream) -> None:
            with trio.move_on_after(_STREAM_DEADLINE) as scope:
                await stream_handler(stream)
            if scope.cancelled_caught:
                await stream.reset()

        self._inner.set_stream_handler(self._translated(protocol_id), with_deadline)

    def remove_stream_handler(self, protocol_id: TProtocol) -> None:
        self._inner.remove_stream_handler(self._translated(protocol_id))

    async def new_stream(self, peer_id: ID, protocol_ids: Sequence[TProtocol]) -> INetStream:
        return await self._inner.new_stream(peer_id, [self._translated(protocol) for protocol in protocol_ids])

    def get_peerstore(self) -> Any:
        return self._peerstore

    def _translated(self, protocol_id: TProtocol) -> TProtocol:
        return self._own_protocol if protocol_id == PUBLIC_KAD_PROTOCOL else protocol_id

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _NoProviders(ProviderStore):
    """A provider store that keeps nothing."""

    def add_provider(self, key: bytes, provider: Any) -> None:
        """Keep nothing."""


def kad_dht(host: IHost, protocol_id: str, *, serve: bool) -> KadDHT:
    """A Kad-DHT that finds peers under `protocol_id` and stores nothing; `serve` tells whether it answers others.

    Not run as a service: that only refreshes buckets over streams, which our own lookups do at a tenth of the cost.
    """
    translating: Any = _TranslatingHost(host, protocol_id)
    dht = KadDHT(
        translating,
        DHTMode.SERVER if serve else DHTMode.CLIENT,
        validator=NamespacedValidator({}, strict_validation=True),
        validator_changed=True,
        protocol_prefix=TProtocol(protocol_id),
        strict_validation=True,
        # Many nodes of one network in one data centre are the common case here.
        max_peers_per_subnet=0,
    )
    dht.provider_store = _NoProviders(host=translating, peer_routing=dht.peer_routing)
    return dht
