"""Values of any type that a message has: of the right form, with contents that nobody honest would send.

What has a signature is signed by a key that the sender has, over whatever it says. All of it is a function of the
randomness alone.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, TypeVar

import base58
import cbor2
import msgspec
from msgspec import inspect

from overlay.discovery.recursive import KnownMember
from overlay.identity import Identity, peer_id_of, public_key_of
from overlay.libp2p.signed_peer_record import sign_peer_record
from overlay.membership.certificate import Certificate, encode_chain
from overlay.presence.evidence import Evidence, encode_evidence
from overlay.presence.statements import Presence, Proof, Word, sign
from registry.health.exceptions import ExceptionList
from registry.health.report import encode_report, signed_report
from registry.health.state import Health, HealthState, HostedService
from registry.model.signing import key_id_of
from registry.model.values import Key, KeyTombstone, Record, RecordMetadata, Slot, Tombstone, encode
from registry.permission.policy import POLICY_TYPE, Policy, encode_policy
from registry.permission.scope import Scope, ScopeKind
from registry.protocol.index_messages import EnterBody, IndexPage
from registry.protocol.messages import Item, PutBody, StatePage
from registry.replication.epoch import epoch_of
from registry.replication.messages import CompareBody, RangesBody, ReplicateBody
from registry.settings import RegistrySettings
from registry.trust.statements import TrustRevocation, TrustStatement
from registry.watch.announcement import announcement_of
from registry.watch.messages import AnnounceBody, SubscribeBody, SubscriptionRequest

Form = TypeVar("Form")

_NO_IDS: Final = (
    "", "0", "1", " ", "l0O", "1" * 52, "a" * 64, "x" * 200, "\0", "\u202e12D3", "\U0001f600", "\u00fc", "../..", "%s",
    base58.b58encode(bytes([0x12, 0x20]) + b"r" * 32).decode(),  # of an RSA key, as its hash
    base58.b58encode(bytes([0, 37, 8, 2, 18, 33, 2]) + b"k" * 32).decode(),  # of a secp256k1 key
    base58.b58encode(bytes([0, 36, 8, 1, 18, 32]) + b"\xff" * 31).decode(),  # cut
    "bafzaajaiaejcbrvpqblmqyqnpuphfzkcnc4zmqjhzvdxbhtvqxrzcpxgtdbxaa5r",  # as a CID
    peer_id_of(bytes(32)),  # of a key that signs for everybody
    peer_id_of(b"\1" + bytes(31)), peer_id_of(b"\xff" * 32),
)  # fmt: skip
_TEXTS: Final = (
    "", "web", "0", "honest 0", "\0", "\x1b[2J", "\u202e", "\ufeff", "\U0010ffff", "e\u0301", "\n", "-1", "null",
    "x" * 128, "x" * 1024, "x" * 5000, "collect", "replicate", "renew", "registry", "../../etc", "{}", "%n",
)  # fmt: skip
_ADDRESSES: Final = (
    "/ip4/127.0.0.1/tcp/1", "/ip4/0.0.0.0/tcp/0", "/ip6/::1/tcp/1/ws", "/dns4/localhost/tcp/1", "/dns4/./tcp/1",
    "/dnsaddr/localhost", "/p2p-circuit", "/unix/x", "", "/", "/ip4/999.1.1.1/tcp/1", "/ip4/127.0.0.1/udp/1/quic-v1",
    "/ip4/127.0.0.1/tcp/70000", "/ip6zone/x/ip6/fe80::1/tcp/1", "/ip4/127.0.0.1/tcp/1/p2p/0",
)  # fmt: skip
_NUMBERS: Final = (
    0, 1, 2, 3, 20, 127, 128, 255, 512, 1000, 2**15 - 1, 2**15, 2**31, 2**32, 2**53, 2**53 + 1, 2**63 - 1, 2**63,
    2**64 - 1, -1, -2, -(2**31), -(2**63), -(2**63) - 1,
)  # fmt: skip
_FLOATS: Final = (0.0, -0.0, 0.1, 1.0, -1.0, 60.0, 1e9, 2.0**53, 2.0**63, 1e308, 5e-324, math.nan, math.inf, -math.inf)
_TIMES: Final = (0, 0, 0, 0, -1, 1, -60, 60, -3600, 3600, -90_000, 86_400, -10_000_000, 10_000_000)
_ANYTHING: Final[tuple[object, ...]] = (
    None, True, 0, -1, 2**63, math.nan, "", "0", b"", b"\0" * 64, [], [[]], {}, {"a": 1}, {1: {}}, [None] * 300,
)  # fmt: skip
_ID_NAMES: Final = (
    "peer_id", "host", "hosts", "via", "witness", "accused", "client", "replica", "target", "further", "caller",
    "peers", "owner_peer_id", "issued_by", "relay_id", "answerer", "around", "path", "others", "id",
)  # fmt: skip
_TIME_NAMES: Final = ("time", "created", "issued", "expires", "until", "now", "not_before", "epoch", "revoked")
_TRIES: Final = 4


@lru_cache(maxsize=512)
def _info(form: Any) -> inspect.Type:
    return inspect.type_info(form)


class OddValues:
    """Makes values; each time as odd as `oddness` says: the share of fields that aren't what they should be."""

    def __init__(
        self,
        randomness: random.Random,
        own: Sequence[Identity],
        peers: Sequence[str],
        resources: Sequence[str],
        now: int,
        node: str,
    ) -> None:
        """`own`: keys that the sender has, its own first. `peers`, `resources`: real ones of others; `node`: the
        receiver. `now`: seconds since 1970."""
        self._random = randomness
        self._own = own
        self._by_id = {identity.peer_id: identity for identity in own}
        self._peers = peers
        self._resources = [*resources, *(key_id_of("odd", identity.peer_id) for identity in own)]
        self._now = now
        self._node = node
        self.oddness = randomness.choice((0.0, 0.03, 0.1, 0.3))

    def of(self, form: Any, name: str = "") -> Any:
        """A value of a type, as CBOR has it. `name`: of the field that it is for, which tells what is usual there."""
        return self._of(_info(form), name)

    def identity(self) -> Identity:
        """The sender, or mostly."""
        return self._own[0] if self._random.random() < 0.7 else self._random.choice(self._own)

    def peer_id(self) -> str:
        """The id of a peer: the sender's, another's, or of no peer."""
        if self._is_odd():
            return self._random.choice((*_NO_IDS, f" {self._node}", f"{self._node}1", self._node[:-1]))
        chance = self._random.random()
        if chance < 0.4:
            return self.identity().peer_id
        return self._node if chance < 0.6 else self._random.choice(self._peers)

    def key_id(self) -> str:
        """The id of a resource."""
        return self._random.choice(_NO_IDS) if self._is_odd() else self._random.choice(self._resources)

    def seconds(self) -> int:
        """A time since 1970, in seconds."""
        if self._is_odd():
            return self._random.choice(_NUMBERS)
        return self._now + self._random.choice(_TIMES)

    def moment(self) -> int:
        """The present, in seconds since 1970, or mostly."""
        return max(self.seconds(), 0) if self._is_odd() else self._now

    def epoch(self) -> int:
        """What replicas compare by at present, or mostly."""
        return max(self.seconds(), 0) if self._is_odd() else epoch_of(self._now, RegistrySettings().clock_skew)

    def key(self) -> Key:
        """A key of the sender's, with or without a policy."""
        owner, kind, challenge = self.identity(), "", b""
        if self._random.random() < 0.4:
            kind, challenge = POLICY_TYPE, self._policy(owner)
        elif self._is_odd():
            kind, challenge = self._random.choice((POLICY_TYPE, "x", "\0")), self._bytes(0, 300)
        owner_id = self.peer_id() if self._is_odd() else owner.peer_id
        unsigned = Key(self._label(), owner_id, self.seconds(), challenge, kind, b"")
        return msgspec.structs.replace(unsigned, signature=owner.sign(unsigned.signed_bytes()))

    def key_tombstone(self) -> KeyTombstone:
        """A key tombstone of the sender's."""
        owner, label = self.identity(), self._label()
        key_id = self.key_id() if self._is_odd() else key_id_of(label, owner.peer_id)
        revision = self._number(0, 2**63 - 1) if self._is_odd() else self._random.choice((0, 0, 1))
        unsigned = KeyTombstone(key_id, label, owner.peer_id, self.seconds(), b"", revision)
        return msgspec.structs.replace(unsigned, signature=owner.sign(unsigned.signed_bytes()))

    def metadata(self) -> RecordMetadata:
        """What the sender says of a service."""
        issuer = self.identity()
        unsigned = RecordMetadata(
            self.key_id(),
            issuer.peer_id,
            self.peer_id(),
            self.seconds(),
            self._chain() if self._random.random() < 0.3 else self._bytes(0, 100) if self._is_odd() else b"",
            self._text(),
            tuple(self.peer_id() for _ in range(self._random.choice((0, 0, 1, 2)))),
            tuple(self._text() for _ in range(self._random.choice((0, 1, 1, 2)))),
            b"",
        )
        return msgspec.structs.replace(unsigned, issuer_signature=issuer.sign(unsigned.signed_bytes()))

    def record(self) -> Record:
        """A record that the sender issued and hosts, or says so."""
        metadata = self.metadata()
        host = self._by_id.get(metadata.peer_id, self._own[0])
        unsigned = Record(metadata, self.seconds(), b"")
        return msgspec.structs.replace(unsigned, signature=host.sign(unsigned.signed_bytes()))

    def tombstone(self) -> Tombstone:
        """A tombstone of the sender's."""
        issuer = self.identity()
        solution = self._chain() if self._random.random() < 0.3 else b""
        unsigned = Tombstone(self.key_id(), issuer.peer_id, self.peer_id(), self.seconds(), solution, b"")
        return msgspec.structs.replace(unsigned, issuer_signature=issuer.sign(unsigned.signed_bytes()))

    # By types.

    def _of(self, form: inspect.Type, name: str) -> Any:  # noqa: C901, PLR0911, PLR0912 - one case for each kind of type
        match form:
            case inspect.Metadata(type=inner):
                return self._of(inner, name)
            case inspect.StructType():
                return self._struct(form)
            case inspect.UnionType(types=types):
                some = [each for each in types if not isinstance(each, inspect.NoneType)]
                if len(some) < len(types) and self._random.random() < 0.3:
                    return None
                return self._of(self._random.choice(some), name)
            case inspect.StrType(max_length=longest):
                return self._string(name)[:longest]
            case inspect.BytesType(min_length=least, max_length=longest):
                return self._blob(name, least or 0, longest)
            case inspect.BoolType():
                return self._random.random() < 0.5
            case inspect.IntType(ge=least, le=most, lt=below):
                return self._integer(name, least, most if most is not None else None if below is None else below - 1)
            case inspect.FloatType(ge=least, le=most):
                return self._float(name, least, most)
            case inspect.EnumType(cls=kind):
                return self._random.choice([each.value for each in kind])
            case inspect.TupleType(item_types=kinds):
                return [self._of(kind, name) for kind in kinds]
            case inspect.VarTupleType() | inspect.ListType() | inspect.CollectionType():
                return self._list(form, name)
            case inspect.DictType(key_type=key_type, value_type=value_type):
                count = self._random.choice((0, 1, 2, 5))
                return {self._of(key_type, name): self._of(value_type, name) for _ in range(count)}
            case inspect.NoneType():
                return None
            case _:
                return self._random.choice(_ANYTHING)

    def _struct(self, form: inspect.StructType) -> Any:
        maker = _MAKERS.get(form.cls)
        if maker is not None:
            for _ in range(_TRIES):
                try:
                    return msgspec.to_builtins(maker(self), builtin_types=(bytes,))
                except (ValueError, OverflowError):  # odder than it can be; InvalidValue is one of them
                    continue
        values: dict[str, Any] = {}
        for field in form.fields:
            special = _FIELDS.get((form.cls, field.name))
            values[field.encode_name] = special(self) if special is not None else self._of(field.type, field.name)
        if not form.array_like:
            return values
        optional = sum(not field.required for field in form.fields)
        sent = [*values.values()]
        if optional and self._random.random() < 0.2:
            del sent[len(sent) - self._random.randrange(optional + 1) :]
        return sent if form.tag is None else [form.tag, *sent]

    def _list(self, form: inspect.VarTupleType | inspect.ListType | inspect.CollectionType, name: str) -> list[Any]:
        longest = 300 if form.max_length is None else form.max_length
        count = self._random.choice((0, 1, 1, 2, 3, 8))
        if self._is_odd():
            count = self._random.choice((0, 40, longest))
        count = min(max(count, form.min_length or 0), longest)
        some = [self._of(form.item_type, name) for _ in range(min(count, 12))]
        return [*some, *(self._random.choice(some) for _ in range(count - len(some)))]  # with duplicates

    def _string(self, name: str) -> str:
        if name in _ID_NAMES:
            return self.peer_id()
        if name in ("key_id", "resource_id"):
            return self.key_id()
        if name == "addresses":
            address = self._random.choice(_ADDRESSES)
            return address if self._random.random() < 0.5 else f"{address}/p2p/{self.peer_id()}"
        if name == "after":
            return self._random.choice((self.key_id, self.peer_id, self._text))()
        return self._text()

    def _blob(self, name: str, least: int, longest: int | None) -> bytes:
        if name == "position":  # of any resource
            least = longest = 32
        maker = _BLOBS.get(name)
        if maker is not None and not self._is_odd():
            for _ in range(_TRIES):
                try:
                    return maker(self)[:longest]
                except (ValueError, OverflowError):
                    continue
        return self._bytes(least, longest)

    def _bytes(self, least: int, longest: int | None) -> bytes:
        most = min(longest if longest is not None else 2000, 4000)
        length = min(max(self._random.choice((0, 1, 8, 16, 32, 64, 65, most)), least), max(most, least))
        return self._random.choice((bytes, lambda count: b"\xff" * count, self._random.randbytes))(length)

    def _integer(self, name: str, least: int | None, most: int | None) -> int:
        if name == "incarnation":
            return self._within(self._now * 1000 + self._random.choice((0, 0, 1, 2, 60_000, 10**12)), least, most)
        if name == "sequence":
            return self._within(self._random.choice((0, 1, 2, 3, 20, 1000)), least, most)
        if any(part in name for part in _TIME_NAMES) and (least or 0) <= self._now <= (most or self._now):
            return self._within(self.seconds(), least, most)
        return self._number(least, most)

    def _number(self, least: int | None, most: int | None) -> int:
        number = self._random.choice(_NUMBERS if self._is_odd() else _NUMBERS[:5])
        return self._within(number, least, most)

    @staticmethod
    def _within(number: int, least: int | None, most: int | None) -> int:
        number = number if least is None else max(number, least)
        return number if most is None else min(number, most)

    def _float(self, name: str, least: float | None, most: float | None) -> float:
        if "expires" in name or name == "time":
            return float(self.seconds())
        if not self._is_odd():
            return 0.2
        number = self._random.choice(_FLOATS)
        if math.isnan(number):
            return number
        number = number if least is None else max(number, least)
        return number if most is None else min(number, most)

    # What is signed.

    def presence(self) -> Presence:
        """What a host says of itself."""
        presence = self._unsigned(Presence, "peer_id")
        return sign(self._by_id.get(presence.peer_id, self._own[0]), presence)

    def word(self) -> Word:
        """What a witness says of another."""
        word = self._unsigned(Word, "witness")
        return sign(self._by_id.get(word.witness, self._own[0]), word)

    def proof(self) -> Proof:
        """What a host answers a replica."""
        proof = self._unsigned(Proof, "peer_id")
        return sign(self._by_id.get(proof.peer_id, self._own[0]), proof)

    def evidence(self) -> bytes:
        """What signed statements somebody passes on."""
        words = tuple(self.word() for _ in range(self._random.choice((0, 1, 2))))
        return encode_evidence(Evidence(None if self._is_odd() else self.presence(), words))

    def trust(self) -> TrustStatement:
        """The sender trusts somebody."""
        by = self.identity()
        unsigned = TrustStatement(by.peer_id, self.peer_id(), self.seconds(), self.seconds(), b"")
        return msgspec.structs.replace(unsigned, signature=by.sign(unsigned.digest()))

    def trust_revocation(self) -> TrustRevocation:
        """The sender doesn't trust somebody any more."""
        by = self.identity()
        unsigned = TrustRevocation(by.peer_id, self.peer_id(), self.seconds(), b"")
        return msgspec.structs.replace(unsigned, signature=by.sign(unsigned.digest()))

    def item(self) -> Item:
        """A write."""
        state = self._random.choice((lambda: None, self.record, self.tombstone))()
        return Item(self.key() if self._random.random() < 0.8 else self.key_tombstone(), state)

    def announcement(self) -> bytes:
        """What is said on the topic of a resource."""
        return self._blob("payload", 0, 2000)

    def argument(self) -> object:
        """What a function may be called with that takes anything."""
        if self._random.random() < 0.4:
            return self._random.choice(_ANYTHING)
        makers = (self.peer_id, self.key_id, self._text, self.seconds, lambda: self._number(None, None))
        some = [self._random.choice(makers)() for _ in range(3)]
        return some if self._random.random() < 0.2 else some[0]

    def _unsigned(self, kind: type[Form], signer: str) -> Form:
        plain = inspect.type_info(kind)
        assert isinstance(plain, inspect.StructType)
        fields = {field.name: self._of(field.type, field.name) for field in plain.fields}
        if not self._is_odd():
            fields[signer] = self.identity().peer_id
        tag = [] if plain.tag is None else [plain.tag]
        return msgspec.convert([*tag, *fields.values()], kind, builtin_types=(bytes,))

    def _policy(self, owner: Identity) -> bytes:
        def keys() -> tuple[bytes, ...]:
            count = self._random.choice((0, 1, 2))
            return tuple(sorted({public_key_of(self.identity().peer_id) for _ in range(count)}))

        revision = self._random.choice((1, 1, 2, 3, 2**53)) if not self._is_odd() else self._number(0, 2**63 - 1)
        return encode_policy(
            Policy(
                revision=revision,
                open=self._random.random() < 0.5,
                allow=keys(),
                roots=keys() or (public_key_of(owner.peer_id),),
                hosts=keys(),
                longest_chain=self._random.choice((1, 2, 4)),
                previous=self._random.choice((b"", bytes(32), self._random.randbytes(32))),
            )
        )

    def _chain(self) -> bytes:
        links: list[Certificate] = []
        issuer = self.identity()
        for depth in range(self._random.choice((1, 1, 2, 3)), 0, -1):
            subject = self.identity()
            kind = self._random.choice(list(ScopeKind)) if self._is_odd() else ScopeKind.ALL
            scope = Scope(kind, public_key_of(issuer.peer_id))
            begins, ends = self.seconds(), self.seconds() + 3600
            keys = public_key_of(issuer.peer_id), public_key_of(subject.peer_id)
            permits = (self._random.choice(("register", "x", "member")),)
            unsigned = Certificate(*keys, permits, depth - 1, scope.encoded(), begins, ends)
            links.append(unsigned.signed_by(issuer))
            issuer = subject
        return encode_chain(links)

    def _report(self) -> bytes:
        slot = Slot(self.key_id(), self._own[0].peer_id, self.peer_id())
        state = self._random.choice((None, HealthState.PASSING, HealthState.WARNING, HealthState.CRITICAL))
        ttl = self._random.choice((None, 30.0, *_FLOATS))
        time = self.seconds() * 1000
        return encode_report(signed_report(self.identity(), slot, self._text()[:64], time, state, self._text(), ttl))

    def _exceptions(self) -> bytes:
        told = ExceptionList(self.peer_id())
        for _ in range(self._random.choice((0, 1, 3, 40))):
            service = HostedService(self.key_id(), self.peer_id(), self._text()[:64])
            told.put(service, Health(HealthState.CRITICAL, self.seconds(), self._text()[:100]))
        return told.told()

    def _sealed(self) -> bytes:
        relays = [(self.identity().peer_id, ["/ip4/127.0.0.1/tcp/1"])] * self._random.choice((0, 1, 2))
        signed = sign_peer_record(self.identity(), ["/ip4/127.0.0.1/tcp/1"], relays, max(self.seconds(), 0))
        return signed.sealed

    def _label(self) -> str:
        return self._text() if self._is_odd() else self._random.choice(("odd", "web", "odd"))

    def _text(self) -> str:
        return self._random.choice(_TEXTS if self._is_odd() else _TEXTS[1:4])

    def _state(self) -> bytes:
        return encode(self.record() if self._random.random() < 0.6 else self.tombstone())

    def _is_odd(self) -> bool:
        return self._random.random() < self.oddness

    def _ranges(self) -> list[object]:
        bounds = sorted(self._random.randbytes(self._random.choice((1, 2, 32))) for _ in range(4))
        whole: list[list[object]] = [[[b"", b""]], [[bounds[0], bounds[1]], [bounds[2], bounds[3]]], [bounds[:2]]]
        return self._random.choice(whole)

    def _prefixes(self) -> list[object]:
        depth = self._random.choice((0, 1, 3, 40))
        return [
            bytes(self._random.randrange(16) for _ in range(depth)) for _ in range(self._random.choice((1, 9, 512)))
        ]

    # Lists of what is read one by one.

    def _several(self, make: Callable[[], object]) -> list[object]:
        made: list[object] = []
        for _ in range(self._random.choice((0, 1, 1, 2, 8))):
            try:
                made.append(self._random.choice(_ANYTHING) if self._is_odd() else make())
            except (ValueError, OverflowError):
                continue
        return made * (40 if self._random.random() < 0.02 else 1)

    def _items(self) -> list[object]:
        def make() -> object:
            item = self.item()
            return [encode(item.key_or_tombstone), encode(item.state) if item.state else b""]

        return self._several(make)

    def _entries(self) -> list[object]:
        def make() -> object:
            kinds = self._random.choice(((self.key,), (self.key, self.key_tombstone), (self.key_tombstone,)))
            return [encode(kind()) for kind in kinds]

        return self._several(make)

    def _announcements(self) -> list[object]:
        return self._several(lambda: [self.key_id(), announcement_of(self.item())])

    def _subscriptions(self) -> list[object]:
        return self._several(lambda: self.of(SubscriptionRequest))

    def _states(self) -> list[object]:
        return self._several(self._state)

    def encoded(self, form: Any) -> bytes:
        """A value in CBOR."""
        return cbor2.dumps(self.of(form))


_MAKERS: Final[Mapping[type, Callable[[OddValues], object]]] = {
    Key: OddValues.key,
    KeyTombstone: OddValues.key_tombstone,
    RecordMetadata: OddValues.metadata,
    Record: OddValues.record,
    Tombstone: OddValues.tombstone,
    Presence: OddValues.presence,
    Word: OddValues.word,
    Proof: OddValues.proof,
    TrustStatement: OddValues.trust,
    TrustRevocation: OddValues.trust_revocation,
}

_FIELDS: Final[Mapping[tuple[type, str], Callable[[OddValues], object]]] = {
    (PutBody, "items"): OddValues._items,  # noqa: SLF001 - of this module
    (ReplicateBody, "items"): OddValues._items,  # noqa: SLF001
    (EnterBody, "entries"): OddValues._entries,  # noqa: SLF001
    (IndexPage, "entries"): OddValues._entries,  # noqa: SLF001
    (AnnounceBody, "items"): OddValues._announcements,  # noqa: SLF001
    (SubscribeBody, "requests"): OddValues._subscriptions,  # noqa: SLF001
    (StatePage, "states"): OddValues._states,  # noqa: SLF001
    (RangesBody, "ranges"): OddValues._ranges,  # noqa: SLF001
    (RangesBody, "prefixes"): OddValues._prefixes,  # noqa: SLF001
    (RangesBody, "horizon"): lambda odd: None,
    (RangesBody, "epoch"): lambda odd: odd.epoch(),
    (CompareBody, "now"): lambda odd: odd.moment(),
    (KnownMember, "peer_id"): OddValues.peer_id,
}

_BLOBS: Final[Mapping[str, Callable[[OddValues], bytes]]] = {
    "key": lambda odd: encode(odd.key()),
    "key_or_tombstone": lambda odd: encode(odd.item().key_or_tombstone),
    "key_tombstone": lambda odd: encode(odd.key_tombstone()),
    "latest_key_tombstone": lambda odd: encode(odd.key_tombstone()),
    "siblings": lambda odd: encode(odd.key()),
    "state": OddValues._state,  # noqa: SLF001
    "metadata": lambda odd: encode(odd.metadata()),
    "record": lambda odd: encode(odd.record()),
    "report": OddValues._report,  # noqa: SLF001
    "sealed": OddValues._sealed,  # noqa: SLF001
    "payload": lambda odd: announcement_of(odd.item()),
    "evidence": OddValues.evidence,
    "exceptions": OddValues._exceptions,  # noqa: SLF001
    "chain": OddValues._chain,  # noqa: SLF001
    "solution": OddValues._chain,  # noqa: SLF001
}
