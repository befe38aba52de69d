"""A peer of the network: what the rooms of this package do together, as the layers above see it.

`overlay.assembly` opens one over py-libp2p.

open_peer ── host           py-libp2p: listening, connections, streams, gossip
          └─ OverlayPeer.run
             ├─ links         calls to and from every peer
             ├─ topics        joining and leaving topics
             ├─ lookup        knowing all members around our own position
             ├─ bootstrap     joining the network, and rejoining it
             ├─ departures    newcomers and lost members: routing table, addresses, more dials before one is given up
             ├─ peer_records  publishing where this peer can be reached
             ├─ network_upkeep  in a private network, who may stay
             ├─ compared_clock  comparing this machine's clock with others'
             └─ presence      who is alive, and telling that this peer is
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

import msgspec
import structlog
import trio

from overlay.clock.watch import ClockWatch
from overlay.discovery.address_linker import AddressLinker
from overlay.discovery.address_search import AddressSearch
from overlay.discovery.bootstrap import Bootstrap
from overlay.discovery.bootstrap_peer import BootstrappedPeer
from overlay.discovery.bootstrap_pins import BootstrapPins
from overlay.discovery.bootstrap_resolver import BootstrapResolver
from overlay.discovery.bootstrap_source import parse_source
from overlay.discovery.density import Density
from overlay.discovery.departures import Departures
from overlay.discovery.dnsaddr import look_up_dnsaddr
from overlay.discovery.keyspace import resource_position
from overlay.discovery.lookup import Lookup
from overlay.discovery.peer_record import PeerRecord
from overlay.discovery.peer_records import PeerRecords
from overlay.discovery.routing_table import RoutingTable
from overlay.discovery.vetting import Vetting
from overlay.identity import Identity
from overlay.libp2p.signed_peer_record import MAX_RELAYS, open_peer_record, sign_peer_record
from overlay.limits.loop_lag import LoopLag
from overlay.nearby_members import NearbyPeers
from overlay.peer_host import PeerHost
from overlay.presence.incarnation import next_incarnation
from overlay.presence.liveness import Liveness
from overlay.pubsub.topics import Topics
from overlay.relaying.client_probe import ClientProbe
from overlay.relaying.path_selection import PathSelection
from overlay.relaying.relay import Relay
from overlay.relaying.relayed_rpc import RelayedRpc
from overlay.rpc.counters import LinkStatistics
from overlay.rpc.greetings import Greetings
from overlay.rpc.links import Links
from overlay.rpc.network_upkeep import NetworkStatus, NetworkUpkeep, PrivateNetwork
from overlay.rpc.product import PeerVersion
from overlay.rpc.server import Handler
from overlay.rpc.transport import ByteStream, StreamHandler
from overlay.settings import OverlaySettings
from overlay.tasks import TaskStatus
from overlay.tracing import TRACING

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_NODES = 2  # through which a light client acts


class OverlayStatistics(LinkStatistics, kw_only=True):
    """What a peer is doing: its links and counts, as of now."""

    connections: int
    """Open connections, with or without a link."""
    routing_table: int
    """Peers in the Kad table."""
    loop_lag_max: float
    """Seconds by which the loop was late at worst, in the last minute: for as long nothing was answered."""
    loop_lag_p99: float
    """Seconds that 99 of 100 turns of the loop weren't later than, in the last minute."""
    lookups: int = 0
    """Lookups since the start, for which others were asked."""
    lookups_cut_short: int = 0
    """Of those, the ones that a deadline ended."""
    dialled_by: int | None = None
    """Linked members that have dialled this peer since it started, if only to see whether they can; None where a peer
    from before this was told."""


class OverlayPeer:
    """One peer of the network. Made by `open_peer`, which owns its tasks."""

    def __init__(
        self,
        host: PeerHost,
        routing: RoutingTable,
        identity: Identity,
        settings: OverlaySettings,
        *,
        clock: Callable[[], float] = time.time,
        randomness: random.Random | None = None,
        private: PrivateNetwork | None = None,
        pins: BootstrapPins | None = None,
        steady_clock: Callable[[], float] = trio.current_time,
        incarnation: int | None = None,
    ) -> None:
        """`routing`: the table of the same host. `clock`: seconds since 1970. `private`: what lets peers in. `pins`:
        who is trusted at bootstrap addresses that name no peer.

        `steady_clock`: seconds; it doesn't go back, and runs on while the machine sleeps. `incarnation`: of this run,
        above those of the runs before; the time by default.
        """
        self._host = host
        self._settings = settings
        self._greetings = private.greetings if private is not None else Greetings()
        self._links = Links(
            host,
            settings,
            settings.member,
            keeps=self._keeps,
            randomness=randomness,
            greetings=self._greetings,
            vet=self._vet,
        )
        self._network_upkeep = (
            NetworkUpkeep(self._links, self._greetings, identity, private.files) if private is not None else None
        )
        self._relayed = RelayedRpc(
            identity, self._links, settings.relaying, clock=clock, decoded_items=self._links.decoded_items
        )
        if settings.member:
            Relay(self._links, settings.relaying)
        self._topics = Topics(host.gossip, host.admission, settings.topics)
        self._vetting = Vetting(host, self._links)
        self._routing = routing
        self._links.on_unreachable(self._routing.note_failure)
        self._lookup = Lookup(identity, host, self._links, settings, randomness, routing)
        self._address_search = AddressSearch(host, self._links, self._lookup, member=settings.member)
        self._address_linker = AddressLinker(host, self._links, routing)
        self._identity = identity
        self._peer_records = PeerRecords(
            self._links,
            self._lookup,
            settings.peer_records,
            member=settings.member,
            says=lambda: (self.addresses(), self.members()[:MAX_RELAYS]),
            own=self._own_peer_record,
            open_sealed=open_peer_record,
            clock=clock,
        )
        self._resolver = BootstrapResolver(
            host.peer_id,
            host,
            look_up_dnsaddr,
            pins or BootstrapPins(None),
            pins_first=private is None,
            timeout=settings.dial_timeout,
        )
        self._loop_lag = LoopLag()
        self._membership_callbacks: list[Callable[[], None]] = []
        self._departures = Departures(
            host,
            self._links,
            self._routing,
            settings.dial_timeout,
            is_neighbour=self._lookup.is_neighbour,
            when_changed=self._note_change,
        )
        self._lookup.on_neighbours_change(self._note_neighbours)
        self._bootstrapped = BootstrappedPeer(
            host.peer_id, self._links, self._lookup, self._address_linker, self._departures, settings
        )
        self._bootstrap = Bootstrap(self._bootstrapped, settings, self._resolver, randomness)
        self._compared_clock = ClockWatch(self, clock, randomness or random.Random())  # noqa: S311 - whom to ask
        self._presence = Liveness(
            identity,
            self._links,
            host,
            NearbyPeers(self._lookup, ClientProbe(host.peer_id, self._links, self._relayed), self.nodes),
            incarnation=incarnation if incarnation is not None else next_incarnation(None, clock()),
            clock=steady_clock,
            randomness=randomness or random.Random(),  # noqa: S311 - whom to ask, and when
            is_member=settings.member,
        )

    @property
    def peer_id(self) -> str:
        """Our own peer id (base58)."""
        return self._host.peer_id

    def addresses(self) -> list[str]:
        """Multiaddrs at which others reach this peer, each ending in `/p2p/<own id>`; empty for one that only dials."""
        return self._host.listen_addresses()

    def serve(self, method: str, handler: Handler, *, relayed: bool = False) -> None:
        """Answer calls of `method` with `await handler(caller's peer id, body)`; bodies are what CBOR can carry.

        A handler refuses by raising `Refusal`; anything else that it raises is answered as code "internal".
        `relayed`: also answer calls that come through relays. Raises ValueError when the method is served already.
        """
        self._links.serve(method, handler)
        if relayed:
            self._relayed.serve(method, handler)

    async def call(self, peer_id: str, method: str, body: object, *, timeout: float) -> object:
        """Call `method` of a peer and return the answer's body; `timeout` in seconds is for all of it.

        Dials, at the addresses known, when there is no link. Raises subclasses of `CallFailed`; the remote handler is
        cancelled when this is.
        """
        with TRACING.part(f"call {method}", peer=peer_id):
            return await self._links.call(peer_id, method, body, timeout=timeout)

    async def call_via(
        self, relays: Sequence[str], peer_id: str, method: str, body: object, *, timeout: float
    ) -> object:
        """Call `method` of a peer through one relay, or through two that are connected to each other, nearest first.

        The peer learns who calls, and the relays can read nothing. Raises subclasses of `CallFailed`, as `call`.
        """
        with TRACING.part(f"call {method}", peer=peer_id, relays=len(relays)):
            return await self._relayed.call(peer_id, relays, method, body, timeout=timeout)

    async def call_anywhere(self, peer_id: str, method: str, body: object, *, timeout: float) -> object:
        """Call `method` of a peer wherever it is, also behind relays that have to be found first.

        For methods served with `relayed`. Raises subclasses of `CallFailed`, as `call`.
        """
        return await PathSelection(self, peer_id).call(method, lambda _: body, timeout)

    async def find(self, peer_id: str, *, timeout: float) -> list[str]:
        """Multiaddrs of a peer: those known, else those that the members nearest to it tell, or a light client's node.

        Remembers them. Empty when no peer that was asked knows any.
        """
        return await self._address_search.find(peer_id, timeout=timeout)

    def advertise(self, *, is_there: bool = True) -> None:
        """Publish from now on through which members this peer can be called, and, if `is_there`, its presence, until it
        stops; members do both anyway."""
        self._peer_records.advertise()
        if is_there:
            self._presence.advertise()

    async def find_peer_record(self, peer_id: str, *, timeout: float) -> PeerRecord | None:
        """What a peer said lately of where it can be reached, and through which relays; remembers the addresses."""
        peer_record = await self._peer_records.find(peer_id, timeout=timeout)
        if peer_record is not None:
            self._host.add_addresses(peer_id, peer_record.addresses, teller=peer_id)
            for relay, address in peer_record.relay_addresses:
                if not self.addresses_of(relay):  # what a stranger says of others pushes nothing out
                    self._host.add_addresses(relay, [address], teller=peer_id)
        return peer_record

    async def connect(self, multiaddr: str, *, timeout: float) -> str:
        """Connect and link to the peer at a multiaddr that ends in `/p2p/<peer id>`; returns that id.

        Raises `Unreachable` and other kinds of `CallFailed`, and `AddressError` for what isn't such an address.
        """
        return await self._address_linker.connect(multiaddr, timeout=timeout)

    async def addresses_from(self, given: str) -> list[str]:
        """The peers' addresses, each with `/p2p/<id>`, that anything stands for which a bootstrap address may be.

        Raises `AddressError` for what is none, and `BootstrapFailed` where it leads to nobody.
        """
        return await self._resolver.addresses(parse_source(given))

    def network_status(self) -> NetworkStatus | None:
        """How this peer is in a private network; None where the network isn't private."""
        return self._network_upkeep.status() if self._network_upkeep is not None else None

    async def share_revocations(self, peer_id: str, *, timeout: float) -> None:
        """Tell a linked peer all that this one knows to be revoked in a private network. Raises `CallFailed`."""
        assert self._network_upkeep is not None
        await self._network_upkeep.share(peer_id, timeout=timeout)

    async def disconnect(self, peer_id: str) -> None:
        """Close every connection to a peer. Members may come back at once."""
        await self._host.disconnect(peer_id)

    def add_addresses(self, peer_id: str, addresses: list[str], *, teller: str = "") -> None:
        """Remember where a peer may be reached; bounded, and bad addresses are dropped silently.

        `teller`: the peer that says so, whose word is worth a few vain dials; empty: our operator or user.
        """
        self._host.add_addresses(peer_id, addresses, teller=teller)

    async def neighbourhood(self, resource_id: str, count: int) -> list[str]:
        """The `count` live members nearest to a resource, nearest first, this peer among them when it is one; followed,
        where the resource is dense, by others of its region (`overlay.discovery.density`).

        Fewer when the network has fewer, or when the lookup took longer than `lookup_timeout`; empty for a light client
        without a node. Never raises for what peers do.
        """
        return await self._lookup.neighbourhood(resource_position(resource_id), count)

    async def nearest_to(self, position: int, count: int) -> list[str]:
        """The `count` live members nearest to any position of the keyspace (`overlay.discovery.keyspace`)."""
        return await self._lookup.nearest(position, count)

    def is_responsible(self, resource_id: str, count: int, margin: int = 0) -> bool:
        """Whether this peer is one of the `neighbourhood` of a resource, as far as it knows; asks nobody.

        With a `margin`, also beyond it by so many, and by what views of the network may differ.
        """
        return self._lookup.is_responsible(resource_position(resource_id), count, margin)

    def density(self) -> Density:
        """What the members that this peer knows let expect of the network: it tells which resources are dense."""
        return self._lookup.density

    def hold(self, peer_id: str) -> None:
        """Keep the link to a peer open, if there is one, until `release`: somebody waits for what comes over it."""
        self._links.hold(peer_id)

    def release(self, peer_id: str) -> None:
        """Undo one `hold`."""
        self._links.release(peer_id)

    def members(self) -> list[str]:
        """Members with an open link, without this peer."""
        return self._lookup.members()

    def versions(self) -> dict[str, PeerVersion]:
        """What this peer and each member with an open link runs, by peer id."""
        told = {peer_id: self._links.version_of(peer_id) for peer_id in self.members()}
        linked = {peer_id: version for peer_id, version in told.items() if version is not None}
        return {self.peer_id: self._links.own_version, **linked}

    def neighbours(self) -> list[str]:
        """The linked members around our own position, all of whom this peer knows."""
        return self._lookup.neighbours()

    def chosen_members(self) -> list[str]:
        """The linked members that this peer needs, not those that just dialled it."""
        return [peer_id for peer_id in self.members() if self._keeps(peer_id)]

    def nodes(self) -> list[str]:
        """The nodes that a light client acts through, the one linked to first at the beginning; none for a member."""
        return [] if self._settings.member else self.members()[:_NODES]

    def distance_to(self, peer_id: str) -> int:
        """How far a peer is: 0 for this one, 1 with an open link, 2 for others. Round trips aren't measured."""
        return 0 if peer_id == self.peer_id else 2 - self.is_linked(peer_id)

    def is_linked(self, peer_id: str) -> bool:
        """Whether a link to the peer is open, so that a call needs no dialling."""
        return self._links.is_linked(peer_id)

    @property
    def ready(self) -> bool:
        """Whether writes make sense: not isolated."""
        return not self.is_isolated()

    def is_isolated(self) -> bool:
        """Whether this peer should be in a network and knows no live member of it."""
        return self._bootstrapped.is_isolated()

    async def wait_joined(self) -> None:
        """Wait for the first member; returns at once for a peer that was started without bootstrap addresses."""
        await self._bootstrapped.wait_joined()

    def on_membership_change(self, callback: Callable[[], None]) -> None:
        """Have `callback()` called, synchronously, whenever a member came or went, or `neighbours` tells others.

        It must be cheap and not raise.
        """
        self._membership_callbacks.append(callback)

    def statistics(self) -> OverlayStatistics:
        """Counts as of now."""
        counts = msgspec.structs.asdict(self._links.statistics()) | {"dial_failures": self._host.dial_failures}
        lag, lookups = self._loop_lag.statistics(), self._lookup.statistics()
        return OverlayStatistics(
            connections=len(self._host.connected_peers()),
            routing_table=len(self._routing),
            loop_lag_max=lag.max,
            loop_lag_p99=lag.p99,
            lookups=lookups.lookups,
            lookups_cut_short=lookups.lookups_cut_short,
            dialled_by=sum(map(self._host.has_dialled, self.members())),
            **counts,
        )

    @property
    def loop_lag(self) -> LoopLag:
        """How late the loop is, as `statistics` tells; to be measured while the peer runs."""
        return self._loop_lag

    @property
    def compared_clock(self) -> ClockWatch:
        """How this machine's clock compares with those of the chosen members."""
        return self._compared_clock

    @property
    def topics(self) -> Topics:
        """Announcements to every peer that joined a topic."""
        return self._topics

    def addresses_of(self, peer_id: str) -> list[str]:
        """Multiaddrs at which a peer may be reached, as far as known; of this peer, what it tells others."""
        if peer_id == self.peer_id:
            return self.addresses()
        return self._host.addresses_of(peer_id)

    # Streams of protocols beside calls.

    def set_stream_handler(self, protocol_id: str, handler: StreamHandler) -> None:
        """Have `handler` called with the remote peer's id for every stream of `protocol_id` that a peer opens.

        In a private network whose light clients are free, also for those of peers that never greet.
        """
        self._greetings.open_to_clients(protocol_id)
        self._host.set_stream_handler(protocol_id, handler)

    async def open_stream(self, peer_id: str, protocol_id: str) -> ByteStream:
        """A new stream to a peer, over a connection that is made when there is none.

        Raises `Unreachable`, or `ProtocolNotSupported`; takes at most `dial_timeout` for each of both steps.
        """
        return await self._host.open_stream(peer_id, protocol_id)

    async def open_stream_with(self, peer_id: str, protocol_id: str, message: bytes) -> ByteStream:
        """A new stream with `message` on it, to a peer that is known to speak `protocol_id`; saves a round trip.

        The first that is read are the answers to `overlay.rpc.negotiation.negotiation_of`. Raises `Unreachable`, and
        doesn't notice if the peer refuses the protocol.
        """
        return await self._host.open_stream_with(peer_id, protocol_id, message)

    def is_connected(self, peer_id: str) -> bool:
        """Whether a connection to the peer is open, with or without a link on it."""
        return self._host.is_connected(peer_id)

    @property
    def presence(self) -> Liveness:
        """Which other peers are up."""
        return self._presence

    def remembered_members(self) -> list[str]:
        """The latest peers that were members, linked or not."""
        return self._departures.remembered()

    async def link(self, peer_id: str) -> None:
        """Link to a peer whose addresses are known, within `dial_timeout`."""
        await self._bootstrapped.link(peer_id)

    def is_neighbour(self, peer_id: str) -> bool:
        """Whether a peer lies around our own position, where we need a link to every member."""
        return self._lookup.is_neighbour(peer_id)

    async def self_lookup(self) -> None:
        """Make sure that the members near this one and it know each other; members only."""
        if self._settings.member:
            await self._lookup.self_lookup()

    # Tasks, owned by `open_peer`.

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run all of the peer's tasks until cancelled."""
        async with trio.open_nursery() as nursery:
            if self._network_upkeep is not None:
                await nursery.start(self._network_upkeep.run)
            await nursery.start(self._links.run)
            await nursery.start(self._topics.run)
            nursery.start_soon(self._host.tend_connections, self._links.is_linked)
            nursery.start_soon(self._lookup.run)
            nursery.start_soon(self._bootstrap.run)
            nursery.start_soon(self._departures.run)
            nursery.start_soon(self._peer_records.run)
            nursery.start_soon(self._compared_clock.run)
            await nursery.start(self._presence.run)
            task_status.started()

    def _keeps(self, peer_id: str) -> bool:
        """Whether a link is needed though nobody calls over it; a light client acts through each of its own."""
        return not self._settings.member or self._lookup.keeps(peer_id)

    async def _vet(self, peer_id: str, *, dialled: bool) -> bool:
        return await self._vetting.vet(peer_id, dialled=dialled)

    def _note_change(self, member: bool) -> None:
        if self.is_isolated():
            self._lookup.forget_regions()
        elif member:
            self._bootstrapped.note_member()
        self._bootstrap.note_change()
        if member:
            self._peer_records.note_change()
            self._compared_clock.note_change()
            self._note_neighbours()

    def _note_neighbours(self) -> None:
        self._presence.note_members()
        for callback in self._membership_callbacks:
            callback()

    def _own_peer_record(self, now: float) -> PeerRecord:
        relays = [(member, self.addresses_of(member)) for member in self.members()[:MAX_RELAYS]]
        return sign_peer_record(self._identity, self.addresses(), relays, now)
