"""Members that lie, to other members about the network, or to other replicas about what is stored."""

from __future__ import annotations

import enum
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

import msgspec
import trio

from overlay.discovery.lookup import Lookup
from overlay.discovery.vetting import METHOD as ADDRESSES
from overlay.discovery.vetting import Vetting
from overlay.errors import CallFailed, OverlayError, Refusal
from overlay.identity import Identity
from overlay.presence.messages import TOPIC, Said, Told, notices
from overlay.presence.messages import parse as read_messages
from overlay.presence.statements import Version, Word, sign
from overlay.presence.timings import WORD_TTL
from overlay.rpc.links import Links
from overlay.rpc.server import Handler
from overlay.tasks import background
from registry.codes import Code
from registry.errors import InvalidValue
from registry.model.decoding import decode_key_or_tombstone, decode_state
from registry.model.expiry_horizon import ExpiryHorizon
from registry.model.values import Key, Record, Tombstone, encode
from registry.protocol.error_info import ErrorInfo
from registry.protocol.messages import (
    HOLDS,
    PUT,
    READ,
    HoldsAnswer,
    HoldsBody,
    Item,
    PutAnswer,
    PutBody,
    ReadBody,
    StatePage,
    build,
    parse,
)
from registry.replication.messages import (
    COMPARE,
    COMPARE_RANGES,
    REPLICATE,
    CompareAnswer,
    CompareBody,
    RangesAnswer,
    RangesBody,
    ReplicateBody,
    Summary,
)
from registry.watch.announcement import announcement_of
from registry.watch.messages import (
    ANNOUNCE,
    SUBSCRIBE,
    AnnounceBody,
    SubscribeAnswer,
    SubscribeBody,
    SubscriptionReply,
    SubscriptionRequest,
)
from tests.simulation.forged_policies import Forger, Targets
from tests.simulation.host import SimulatedHost, open_host
from tests.simulation.peers import PeerNetwork

KEPT = 500
WATCHERS = 100
DIALS = 10.0
"""Seconds until a liar has dialled everybody to whom it isn't linked."""


class Kind(enum.Enum):
    """What a liar does when it is asked about the network; of all but these last two, it lies about what is stored."""

    HONEST = enum.auto()
    FORGING = enum.auto()
    """It knows, and names, no others than liars: of the whole network, as it signs, these are all."""
    SILENT = enum.auto()
    """It takes every request and answers none, whatever it is about."""
    REFUSING = enum.auto()
    """It refuses every request."""


ACCUSING = frozenset({Kind.FORGING, Kind.REFUSING})
"""Those who say as witnesses that everybody is down; the others say nothing of anybody."""


class LyingLinks(Links):
    """The links of a liar: to everybody, while it tells of `accomplices` only, if it has some."""

    kind = Kind.HONEST
    accomplices: frozenset[str] = frozenset()

    def serve(self, method: str, handler: Handler) -> None:
        async def answer(caller: str, body: object) -> object:
            if self.kind is Kind.SILENT:
                await trio.sleep_forever()
            if self.kind is Kind.REFUSING:
                raise Refusal("overloaded", "not now")
            return await handler(caller, body)

        # Whoever wants to be heard as a member shows that it is one, whatever it does afterwards.
        super().serve(method, handler if method == ADDRESSES else answer)

    def linked_peers(self) -> Mapping[str, bool]:
        return {peer: is_member for peer, is_member in super().linked_peers().items() if self._tells_of(peer)}

    def on_up(self, callback: Callable[[str, bool], None]) -> None:
        super().on_up(lambda peer, is_member: callback(peer, is_member) if self._tells_of(peer) else None)

    def all_peers(self) -> list[str]:
        """Everybody who is linked."""
        return list(super().linked_peers())

    def _tells_of(self, peer_id: str) -> bool:
        return self.kind is not Kind.FORGING or peer_id in self.accomplices


class LyingPeer:
    """A liar's place in the network: it finds everybody, as one can who crawls it."""

    def __init__(self, network: PeerNetwork, host: SimulatedHost, links: LyingLinks) -> None:
        self.peer_id = host.peer_id
        self.serve = links.serve
        self.call = links.call
        self.members = links.all_peers
        self._network = network
        self._host = host
        self._links = links

    async def run(self) -> None:
        """Link to everybody, again and again."""
        while True:
            for peer_id, host in list(self._network.hosts.items()):
                if peer_id != self.peer_id and peer_id not in self.members():
                    self._host.add_addresses(peer_id, host.listen_addresses())
                    try:
                        await self._links.ensure_link(peer_id, timeout=2)
                    except OverlayError:
                        continue
            await trio.sleep(DIALS)


@asynccontextmanager
async def open_liar(
    network: PeerNetwork,
    identity: Identity,
    kind: Kind,
    accomplices: frozenset[str],
    targets: Targets,
    randomness: random.Random,
) -> AsyncIterator[Liar]:
    """A liar, while the block lasts. `targets`: resources about whose policies it lies."""
    settings = network.settings
    async with open_host(network, identity.peer_id, settings) as host, background() as nursery:

        async def vet(peer_id: str, *, dialled: bool) -> bool:
            return await vetting.vet(peer_id, dialled=dialled)

        links = LyingLinks(host, settings, member=True, randomness=randomness, vet=vet)
        links.kind, links.accomplices = kind, accomplices
        lookup = Lookup(identity, host, links, settings, randomness)
        vetting = Vetting(host, links)
        peer = LyingPeer(network, host, links)
        liar = Liar(peer, Forger(identity, targets, randomness), accomplices, randomness)
        witness = FalseWitness(identity, links, randomness)
        await nursery.start(links.run)
        if kind in ACCUSING:
            nursery.start_soon(witness.run)
        nursery.start_soon(lookup.run)
        nursery.start_soon(peer.run)
        nursery.start_soon(liar.run)
        yield liar


class FalseWitness:
    """A keeper that says of each host whose presence it has that it is down. Use `run`."""

    def __init__(self, identity: Identity, links: LyingLinks, randomness: random.Random) -> None:
        self._identity = identity
        self._links = links
        self._random = randomness
        self._hosts: dict[str, Version] = {}
        self._said = 0
        links.on_notice(TOPIC, self._read)

    async def run(self) -> None:
        """Tells everybody, until cancelled."""
        while True:
            await trio.sleep(self._random.uniform(2, 20))
            messages = [Said(self._word(host, version)) for host, version in self._hosts.items()]
            for body in notices(messages):
                for peer_id in self._links.all_peers():
                    self._links.notify(peer_id, TOPIC, body)

    def _word(self, host: str, version: Version) -> Word:
        self._said += 1
        return sign(self._identity, Word(self._identity.peer_id, host, version, True, self._said, int(WORD_TTL)))

    def _read(self, peer_id: str, body: bytes) -> None:
        for message in read_messages(body):
            if isinstance(message, Told) and len(self._hosts) < KEPT:
                self._hosts[message.presence.peer_id] = message.presence.version


class Liar:
    """A replica that acknowledges what it doesn't keep, forges, and replays what is outdated. Use `run`."""

    def __init__(self, peer: LyingPeer, forger: Forger, accomplices: frozenset[str], randomness: random.Random) -> None:
        self._random = randomness
        self._forger = forger
        self._accomplices = accomplices
        self._watchers: dict[tuple[str, str], None] = {}  # who is told of which resource
        self._seen: list[tuple[bytes, bytes]] = []
        self._peer = peer
        for method, handler in (
            (PUT, self._put),
            (REPLICATE, self._replicate),
            (READ, self._read),
            (COMPARE, self._compare),
            (HOLDS, self._holds),
            (COMPARE_RANGES, self._compare_ranges),
            (SUBSCRIBE, self._subscribe),
        ):
            self._peer.serve(method, handler)

    async def run(self) -> None:
        """Pushes forgeries and replays to others."""
        while True:
            await trio.sleep(self._random.uniform(1, 10))
            others = self._peer.members()
            if not others:
                continue
            if self._seen:
                key_or_tombstone, state = self._random.choice(self._seen)
                items = ((key_or_tombstone, state), (key_or_tombstone, self._forged(state)))
                await self._push(self._random.choice(sorted(others)), items)
            forged, never = self._forger.some()
            if forged and (honest := sorted({*others} - self._accomplices)):
                await self._push_forged(self._random.choice(honest), forged, never)
            if self._watchers:
                await self._announce(*self._random.choice(list(self._watchers)))

    async def _push_forged(self, peer_id: str, forged: Sequence[Item], never: int) -> None:
        """Raises AssertionError where an honest peer takes one of the first `never`."""
        errors = await self._push(peer_id, PutBody.of(forged).items)
        for item, error in zip(forged[:never], errors, strict=False):
            assert error is not None, f"{peer_id} took what its owner never signed: {item}"

    async def _push(self, peer_id: str, items: tuple[tuple[bytes, bytes], ...]) -> Sequence[object]:
        """Why each item was refused; nothing where the call failed."""
        method = self._random.choice((PUT, REPLICATE))
        body = PutBody(items) if method == PUT else ReplicateBody(items, last=True)
        try:
            return parse(await self._peer.call(peer_id, method, build(body), timeout=5), PutAnswer).errors
        except CallFailed:
            return ()

    async def _announce(self, watcher: str, resource_id: str) -> None:
        if (item := self._forger.news(resource_id)) is not None:
            body = AnnounceBody(((resource_id, announcement_of(item)),))
            with suppress(CallFailed):
                await self._peer.call(watcher, ANNOUNCE, build(body), timeout=5)

    async def _subscribe(self, caller: str, body: object) -> object:
        """Takes whoever watches a resource with a policy, and always knows more than they do."""
        replies: list[SubscriptionReply] = []
        for request in parse(body, SubscribeBody).decoded():
            if not isinstance(request, SubscriptionRequest) or not self._forger.takes_watchers(request.key_id):
                replies.append(SubscriptionReply(ErrorInfo(Code.NOT_RESPONSIBLE, "not here")))
                continue
            if len(self._watchers) < WATCHERS:
                self._watchers[caller, request.key_id] = None
            replies.append(SubscriptionReply(digest=self._random.randbytes(32)))
        return build(SubscribeAnswer(tuple(replies)))

    async def _put(self, caller: str, body: object) -> object:
        return self._pretend(parse(body, PutBody).items)

    async def _replicate(self, caller: str, body: object) -> object:
        return self._pretend(parse(body, ReplicateBody).items)

    def _pretend(self, items: tuple[tuple[bytes, bytes], ...]) -> object:
        key_or_tombstone = b""
        for new_key_or_tombstone, state in items:
            key_or_tombstone = new_key_or_tombstone or key_or_tombstone
            if state and len(self._seen) < KEPT:
                self._seen.append((key_or_tombstone, state))
        return build(PutAnswer((None,) * len(items)))

    async def _read(self, caller: str, body: object) -> object:
        if self._random.random() < 0.2:
            raise Refusal(Code.INTERNAL, "not today")
        page = self._forger.page(parse(body, ReadBody).key_id)
        if page is not None and self._random.random() < 0.8:
            return build(page)
        if not self._seen:
            return build(StatePage(holds_key=False, same=False, key=b"", states=(), more=False))
        key_or_tombstone, state = self._random.choice(self._seen)
        key = key_or_tombstone if isinstance(decode_key_or_tombstone(key_or_tombstone), Key) else b""
        return build(StatePage(True, same=False, key=key, states=(state, self._forged(state)), more=False))

    async def _holds(self, caller: str, body: object) -> object:
        return build(HoldsAnswer((True,) * len(parse(body, HoldsBody).entries)))

    async def _compare(self, caller: str, body: object) -> object:
        try:
            request = parse(body, CompareBody)
        except InvalidValue as error:
            raise Refusal(Code.INVALID, str(error)) from error
        horizon = self._random.choice((request.horizon, ExpiryHorizon(2**60, 2**60, 2**60, 2**60, 2**60)))
        summaries = tuple(Summary(number, wanted=True, digest=b"x" * 32) for number in range(len(request.entries)))
        return build(CompareAnswer(horizon, len(request.entries), summaries))

    async def _compare_ranges(self, caller: str, body: object) -> object:
        try:
            request = parse(body, RangesBody)
        except InvalidValue as error:
            raise Refusal(Code.INVALID, str(error)) from error
        node = self._random.choice(
            ((True, b""), (False, self._random.randbytes(256)), (True, self._random.randbytes(48)))
        )
        return build(
            self._random.choice(
                (
                    RangesAnswer(True),
                    RangesAnswer(False, (node,) * max(len(request.prefixes), 1)),
                    RangesAnswer(False, horizon=ExpiryHorizon(2**60, 2**60, 2**60, 2**60, 2**60)),
                    RangesAnswer(False, ranges=((b"", b"\x80"),)),
                )
            )
        )

    def _forged(self, blob: bytes) -> bytes:
        state = decode_state(blob) if blob else None
        if isinstance(state, Record):
            later = state.metadata.timestamp_issued + 1
            return encode(
                msgspec.structs.replace(
                    state, metadata=msgspec.structs.replace(state.metadata, timestamp_issued=later, value="forged")
                )
            )
        if isinstance(state, Tombstone):
            return encode(msgspec.structs.replace(state, timestamp_issued=state.timestamp_issued + 1))
        return blob
