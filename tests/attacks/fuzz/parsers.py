"""Everything that turns bytes of others, or of the disk, into values: by name, with good messages to begin from."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from types import GeneratorType
from typing import Any, Final, NamedTuple, cast, get_origin

import base58
import cbor2
import msgspec
import outcome
from google.protobuf.message import DecodeError as ProtobufDecodeError
from libp2p.kad_dht.pb.kademlia_pb2 import Message

from aqua_compat.builtins.trust_values import AquaCertificate, AquaRevocation, AquaTrust
from aqua_compat.particles.engine.steps import Tetraplet, parse_requests
from aqua_compat.particles.errors import BadParticle, InterpreterFailed
from aqua_compat.particles.particle import MSGPACK as MSGPACK_PREFIX
from aqua_compat.particles.particle import decode as decode_particle
from aqua_compat.particles.particle import encode as encode_particle
from aqua_compat.particles.particle import framed, parse_length
from aqua_compat.particles.particle import sign as sign_particle
from aqua_compat.schema.json_codec import from_json, to_json
from overlay.discovery.address_book import AddressBook, parse_dialable, parse_peer_address
from overlay.discovery.keyspace import peer_position
from overlay.discovery.peer_record import BadPeerRecord
from overlay.errors import AddressError, PeerIdError
from overlay.identity import Identity, public_key_of
from overlay.libp2p.kad_messages import LONGEST_ANSWER, KnownPeer, MessageReader, encoded, tell, told
from overlay.libp2p.muxer.session import YamuxSession
from overlay.libp2p.muxer.session_end import SessionEnded
from overlay.libp2p.signed_peer_record import open_peer_record, sign_peer_record
from overlay.limits.decoder import DecodeError, decode
from overlay.membership import certificate, revocation
from overlay.membership.certificate import CertificateError, decode_chain, encode_chain
from overlay.membership.gatekeeper import MEMBER, certificate_for
from overlay.membership.join_token import LONGEST_TOKEN, PREFIX, JoinToken, TokenError, parse_token
from overlay.membership.revocation import ENTRY_BYTES, Revocation, encode_entry
from overlay.presence import evidence, messages, statements
from overlay.presence.evidence import Evidence, encode_evidence, genuine_evidence
from overlay.presence.statements import Presence, Proof, Version, Word, sign
from overlay.relaying.secure_channel import PendingSession, SecureChannelError, accept, opening_of
from overlay.rpc import protocol
from overlay.rpc.framing import MOST_IN_FRAME, FrameDecoder, FrameError, decode_item
from overlay.settings import CallLimits
from registry.client.node_operations import LIST_RESOURCES, OPERATIONS, CallBody, ListReply, WriteRequest
from registry.client.node_status import NodeStatus
from registry.codes import Code
from registry.errors import InvalidValue, PeerIdParseError
from registry.health.exceptions import MOST_BYTES, ExceptionList, entries_in, exceptions_in
from registry.health.messages import ExceptionsBody, ExceptionsPage, ReportBody
from registry.health.report import MAX_REPORT, decode_report, encode_report, report_is_genuine, signed_report
from registry.health.state import Health, HealthState, HostedService
from registry.model.decoding import (
    decode_key,
    decode_key_or_tombstone,
    decode_key_tombstone,
    decode_metadata,
    decode_state,
)
from registry.model.expiry_horizon import ExpiryHorizon
from registry.model.history import HistoryEvent
from registry.model.merge import ResourceState
from registry.model.owner_index import IndexEntry, ToldPage
from registry.model.values import digest_of, encode
from registry.permission.certificate_text import MAX_TEXT, chain_in_text, text_of
from registry.permission.errors import InvalidPolicy
from registry.permission.policy import (
    MAX_POLICY,
    POLICY_TYPE,
    Denial,
    Policy,
    encode_policy,
    policy_in,
)
from registry.permission.scope import Scope, ScopeKind, scope_in
from registry.protocol.error_info import ErrorInfo
from registry.protocol.index_messages import EnterBody, IndexPage, ListBody, ListsAnswer, ListsBody
from registry.protocol.messages import (
    CountersignBody,
    HoldsAnswer,
    HoldsBody,
    Item,
    PassedOnAnswer,
    PassedOnBody,
    PutAnswer,
    PutBody,
    ReadAnswer,
    ReadBody,
    Spread,
    StatePage,
    WriteOutcome,
    build,
    parse,
)
from registry.replication.hash_tree import Descent, HashTree, TreeNode, entry_of, is_prefix
from registry.replication.messages import (
    CompareAnswer,
    CompareBody,
    RangesAnswer,
    RangesBody,
    ReplicateBody,
    Summary,
    packed,
    size_of,
    unpacked,
)
from registry.replication.ranges import Range
from registry.settings import RegistrySettings
from registry.trust import statements as trust
from registry.trust.errors import TrustForm
from registry.trust.statements import TrustRevocation, TrustStatement, chain_from_text, shown_signature
from registry.upkeep.schedule import ScheduleStatus
from registry.watch.announcement import MAX_ANNOUNCEMENT, announced, announcement_of
from registry.watch.messages import (
    AnnounceBody,
    Server,
    SubscribeAnswer,
    SubscribeBody,
    SubscriptionReply,
    SubscriptionRequest,
)
from tests.attacks.fuzz.mutation import CBOR, JSON, MSGPACK, PROTOBUF, Format, to_varint
from tests.unit.registry.builders import HOST, NODE, NOW, OWNER, STRANGER, a_key, a_key_tombstone, a_record, a_tombstone

LONGEST: Final = CallLimits().max_frame


class Parser(NamedTuple):
    """`parse` raises one of `errors`, and nothing else, whatever it is given; as an iterator, where others have their
    turn in between."""

    name: str
    parse: Callable[[bytes], object]
    errors: tuple[type[Exception], ...]
    seeds: Sequence[bytes]
    form: Format | None = CBOR
    """How good messages are altered; None: as bytes alone."""
    longest: int = LONGEST
    """Bytes of the longest that gets here: whoever reads from the network refuses others."""


def _text(read: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda body: read(body.decode(errors="surrogateescape"))


KEY: Final = a_key("sample", challenge=b"challenge")
KEY_TOMBSTONE: Final = a_key_tombstone()
RECORD: Final = a_record(KEY.id, value="tcp://10.0.0.2:7", relay_id=(HOST.peer_id,))
TOMBSTONE: Final = a_tombstone(KEY.id, host=NODE)
RESOURCE: Final = ResourceState.of(KEY, [RECORD, TOMBSTONE])
ENTRIES: Final = (IndexEntry.of(a_key("a")), IndexEntry.of(KEY, a_key_tombstone(issued=NOW - 1)))
ITEMS: Final = (Item(KEY, RECORD), Item(KEY, TOMBSTONE), Item(KEY), Item(KEY_TOMBSTONE))
REFUSED: Final = ErrorInfo(Code.OVERLOADED, "too many")
HORIZON: Final = ExpiryHorizon.at(NOW, RegistrySettings())
PEERS: Final = tuple(one.peer_id for one in (HOST, NODE, OWNER, STRANGER))
ADDRESSES: Final = (
    "/ip4/127.0.0.1/tcp/7001", "/ip6/::1/tcp/7001/ws", "/dns4/example.com/tcp/443/ws",
    f"/ip4/10.0.0.2/tcp/1/p2p/{HOST.peer_id}", f"/ip4/1.2.3.4/tcp/5/p2p/{HOST.peer_id}/p2p-circuit",
)  # fmt: skip
TREE: Final = HashTree(entry_of(bytes([n % 256, n // 256]) * 16, digest_of(RECORD)) for n in range(2000))

# Values and bodies of the registry

_VALUES: Final = tuple(map(encode, (KEY, RECORD, TOMBSTONE, KEY_TOMBSTONE, RECORD.metadata)))


def _body(form: Any, then: Callable[[Any], object], *seeds: object) -> Parser:
    """A body or an answer of the registry's calls, with what is made of it: in one turn, or in those of a generator."""
    encoded_seeds = [cbor2.dumps(msgspec.to_builtins(seed, builtin_types=(bytes,))) for seed in seeds]
    name = str(form) if get_origin(form) else form.__name__

    def in_turns(body: bytes) -> Iterator[None]:
        decoded = decode_item(body)
        yield  # large bodies are decoded in a turn of their own
        made = then(parse(decoded, form))
        if isinstance(made, GeneratorType):
            yield from made

    return Parser(name, in_turns, (FrameError, InvalidValue), encoded_seeds)


def _same(value: object) -> object:
    return value


def _put(body: PutBody) -> None:
    for position, item in enumerate(body.decoded()):
        body.spread_of(position)
        if isinstance(item, Item):
            item.digest(), item.key_id, item.as_resource()
            if item.state is not None:
                item.state.slot, item.state.order()


def _page(page: StatePage) -> None:
    key, key_tombstones, states = page.decoded()
    ResourceState.of(key, states, *key_tombstones).digest()
    page.next_after(RECORD.slot)


def _ranges(body: RangesBody) -> Iterator[None]:
    unpacked(body.ranges)
    all(map(is_prefix, body.prefixes))
    for part in _parts(body.prefixes):
        yield
        for prefix in part:
            if is_prefix(prefix):
                TREE.node(prefix)


def _ranges_answer(answer: RangesAnswer) -> Iterator[None]:
    if answer.ranges is not None:
        unpacked(answer.ranges)
    descent = Descent(TREE)
    for part in _parts(answer.nodes):
        yield
        for node in part:
            try:
                descent.told(b"", TreeNode(*node))  # the dearest there is: it has all entries
            except ValueError as error:
                raise InvalidValue(str(error)) from error
    yield
    size_of(build(answer))


def _parts(nodes: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """As many at once as a comparison looks at."""
    return (nodes[start : start + 32] for start in range(0, len(nodes), 32))


def _compared(answer: CompareAnswer) -> None:
    for summary in answer.summaries:
        summary.orders()
    HORIZON.stricter(answer.horizon)
    size_of(build(answer))


def _error_info(error: ErrorInfo) -> None:
    error.exception()
    error.on(HOST.peer_id)
    str(error.kind)


def _requests() -> list[list[object]]:
    requests: list[object] = [
        WriteRequest.of(ITEMS[0], 3), [KEY.id, 3, tuple(RECORD.slot), True], [encode(KEY), encode(RECORD.metadata)],
        [KEY.id], [KEY.id], ["write"], [], [KEY.id], ["collect"],
        ["register_key", ["label", [PEERS[0]], NOW, b"", "", bytes(64), None, None]], [b"report"],
    ]  # fmt: skip
    return [[6.0, build(one) if isinstance(one, msgspec.Struct) else one] for one in requests]


def _node_call(body: CallBody) -> None:
    for operation in OPERATIONS:
        try:
            parse(body.request, operation.request)
        except InvalidValue:
            continue


def _exceptions(*, fit: bool) -> ExceptionList:
    told = ExceptionList(HOST.peer_id)
    for number in range(12 if fit else 200):
        issuer = (HOST, OWNER)[number % 2].peer_id
        service = HostedService(KEY.id, issuer, "" if number < 2 else f"instance {number}")
        told.put(service, Health(HealthState.CRITICAL, NOW, "no answer"))
    return told


_SCHEDULE: Final = ScheduleStatus("collect", 60.0, 1, NOW, 0.5, "done")
_PAGE: Final = StatePage.of(RESOURCE, None)

BODIES: Final = (
    _body(PutBody, _put, PutBody.of(ITEMS), PutBody.of(ITEMS, [Spread(PEERS[:2], PEERS, PEERS[2:]), None, None, None])),
    _body(ReplicateBody, lambda body: _put(PutBody(body.items)), ReplicateBody(PutBody.of(ITEMS).items, last=True)),
    _body(PassedOnBody, _same, PassedOnBody("a" * 32)),
    _body(HoldsBody, _same, HoldsBody(((KEY.id, RESOURCE.digest()), (KEY.id, b"")))),
    _body(EnterBody, EnterBody.decoded, EnterBody.of(ENTRIES)),
    _body(ListsBody, _same, ListsBody(PEERS[0], ((KEY.id, ENTRIES[0].digest()), ("x", b"")))),
    _body(ListBody, _same, ListBody(PEERS[0]), ListBody(PEERS[0], "label", 7)),
    _body(ReadBody, _same, ReadBody(KEY.id, RESOURCE.digest(), TOMBSTONE.slot), ReadBody(KEY.id)),
    _body(CountersignBody, _same, CountersignBody(encode(KEY), encode(RECORD.metadata))),
    _body(CompareBody, _same, CompareBody(NOW, HORIZON, ((KEY.id, RESOURCE.digest()), ("x", b"")))),
    _body(
        RangesBody, _ranges, RangesBody(NOW, HORIZON, packed((Range(0, 2**255),)), b"", (b"", b"\1", b"\1\2"), True),
        RangesBody(NOW, None, packed((Range(1, 2), Range(5, 2**256))), bytes(16), (), False),
    ),
    _body(
        SubscribeBody, SubscribeBody.decoded,
        SubscribeBody((build(SubscriptionRequest(KEY.id, True, serves=True)), build(SubscriptionRequest("x", False)))),
    ),
    _body(
        AnnounceBody, AnnounceBody.decoded,
        AnnounceBody(((KEY.id, announcement_of(ITEMS[0])), (KEY.id, announcement_of(ITEMS[3])))),
    ),
    _body(CallBody, _node_call, *_requests()),
    _body(ReportBody, _same, ReportBody(b"report")),
    _body(ExceptionsBody, lambda body: body.service, ExceptionsBody((KEY.id, PEERS[0], "a")), ExceptionsBody()),
)  # fmt: skip

ANSWERS: Final = (
    _body(PutAnswer, _same, PutAnswer((None, ErrorInfo(Code.UNKNOWN_KIND, "why")))),
    _body(PassedOnAnswer, _same, PassedOnAnswer(3)),
    _body(HoldsAnswer, _same, HoldsAnswer((True, False))),
    _body(ListsAnswer, _same, ListsAnswer((True, False))),
    _body(IndexPage, IndexPage.decoded, IndexPage.of(ToldPage(ENTRIES, ENTRIES[-1].label), caught_up=False)),
    _body(StatePage, _page, _PAGE, StatePage.of(ResourceState.of(None, [RECORD], KEY_TOMBSTONE), RECORD.slot)),
    _body(CompareAnswer, _compared, CompareAnswer(HORIZON, 2, (Summary.of(0, RESOURCE), Summary(1, False)))),
    _body(
        RangesAnswer, _ranges_answer, RangesAnswer(False, (TREE.node(b""), TREE.node(b"\1\1"))),
        RangesAnswer(False, (), HORIZON, packed((Range(1, 2),))),
    ),
    _body(
        SubscribeAnswer, _same,
        SubscribeAnswer(
            (
                SubscriptionReply(digest=RESOURCE.digest(), depth=1, age=2.5),
                SubscriptionReply(error=REFUSED, servers=(Server(HOST.peer_id, ADDRESSES[:2]),)),
            )
        ),
    ),
    _body(ErrorInfo, _error_info, REFUSED, ErrorInfo("later", "x")),
    _body(WriteOutcome, _same, WriteOutcome(1, 20, (REFUSED,), True, "a" * 32, 4)),
    _body(
        ExceptionsPage, lambda page: entries_in(HOST.peer_id, page.entries),
        ExceptionsPage(bytes(32), tuple(_exceptions(fit=True).page(None)[0])),
    ),
    _body(ReadAnswer, lambda answer: _page(answer.page), ReadAnswer(3, _PAGE, (REFUSED,))),
    *(
        _body(operation.reply, _same, seed)
        for operation, seed in (
            (OPERATIONS[2], [encode(RECORD)]),
            (OPERATIONS[4], [["peer", ["/ip4/127.0.0.1/tcp/1"]]]),
            (OPERATIONS[5], [build(WriteOutcome(1, 20))]),
            (OPERATIONS[7], [HistoryEvent(NOW, KEY.id, "", "", "stored", "why")]),
            (OPERATIONS[8], _SCHEDULE),
            (OPERATIONS[9], [{"success": True, "error": "", "key_id": "x"}]),
            (LIST_RESOURCES, ListReply(IndexPage.of(ToldPage(ENTRIES, None), caught_up=True), 2, (REFUSED,))),
        )
    ),
    _body(NodeStatus, _same, NodeStatus(PEERS[0], ADDRESSES, PEERS, 1, 2, 3, 4.5, True, schedules=(_SCHEDULE,))),
)  # fmt: skip


def _value(name: str, decode_value: Callable[[bytes], object], *seeds: bytes) -> Parser:
    return Parser(name, decode_value, (InvalidValue,), seeds, longest=128 * 1024)


VALUES: Final = (
    _value("a key", decode_key, _VALUES[0]),
    _value("a key or key tombstone", decode_key_or_tombstone, _VALUES[0], _VALUES[3]),
    _value("a key tombstone", decode_key_tombstone, _VALUES[3]),
    _value("a state, sent or stored", decode_state, _VALUES[1], _VALUES[2]),
    _value("the metadata of a record", decode_metadata, _VALUES[4]),
    Parser(
        "an announcement",
        partial(announced, KEY.id),
        (InvalidValue,),
        [announcement_of(item) for item in (ITEMS[0], ITEMS[1], ITEMS[3])],
        longest=MAX_ANNOUNCEMENT,
    ),
)

# Health


def _report(encoded: bytes) -> None:
    report_is_genuine(decode_report(encoded))


HEALTH: Final = (
    Parser(
        "a host's exceptions",
        partial(exceptions_in, HOST.peer_id),
        (InvalidValue,),
        [_exceptions(fit=fit).told() for fit in (True, False)],
        longest=MOST_BYTES,
    ),
    Parser(
        "an entry of a host's list of exceptions",
        lambda entry: entries_in(HOST.peer_id, [entry]),
        (InvalidValue,),
        _exceptions(fit=True).page(None)[0][:3],
        longest=MOST_BYTES,
    ),
    Parser(
        "a report of a service's health",
        _report,
        (InvalidValue,),
        [
            encode_report(signed_report(OWNER, RECORD.slot, "", NOW * 1000, HealthState.WARNING, "slow", 10.0)),
            encode_report(signed_report(OWNER, RECORD.slot, "a", NOW * 1000)),
        ],
        longest=MAX_REPORT,
    ),
)

# Presence

_VERSION: Final = Version(NOW * 1000, 3)
_PRESENCE: Final = sign(HOST, Presence(HOST.peer_id, _VERSION, exceptions=bytes(99), via=(NODE.peer_id,)))
_WORDS: Final = tuple(sign(one, Word(one.peer_id, HOST.peer_id, _VERSION, True, 5, 30)) for one in (NODE, OWNER))
_NOTICE: Final = (
    messages.Beat(_VERSION),
    messages.Told(_PRESENCE),
    messages.KnownVersion(_VERSION, HOST.peer_id),
    messages.Said(_WORDS[0]),
    messages.Hint(HOST.peer_id),
    messages.Accused(_VERSION),
    messages.AskAbout(HOST.peer_id, bytes(statements.NONCE_BYTES), _VERSION),
    messages.ProofWanted(HOST.peer_id, bytes(statements.NONCE_BYTES), NODE.peer_id),
    messages.Proven(sign(HOST, Proof(HOST.peer_id, _VERSION, bytes(statements.NONCE_BYTES), NODE.peer_id))),
    messages.SubscribeTo(PEERS, 600),
    messages.ClientGone(OWNER.peer_id),
)


def _notice(body: bytes) -> Iterator[None]:
    for message in messages.parse(body):
        match message:
            case messages.Told(said) | messages.Said(said) | messages.Proven(said):
                statements.is_genuine(said)
    yield


PRESENCE: Final = (
    Parser(
        "a notice of presence", _notice, (),
        [messages.encode(_NOTICE), *(messages.encode([one]) for one in _NOTICE), messages.encode([_NOTICE[3]] * 128)],
        longest=messages.MOST_BYTES,
    ),
    Parser(
        "evidence that a host is up or down", partial(genuine_evidence, HOST.peer_id), (),
        [encode_evidence(Evidence(_PRESENCE, _WORDS)), encode_evidence(Evidence(_PRESENCE))],
        longest=evidence.MOST_BYTES,
    ),
)  # fmt: skip

# Permissions, and private networks

_SCOPE: Final = Scope(ScopeKind.PREFIX, public_key_of(OWNER.peer_id), "pay-")
_PERMIT: Final = certificate_for(
    OWNER, public_key_of(NODE.peer_id), MEMBER, not_before=NOW, expires_at=NOW + 3600, may_admit=True
)
_CHAIN: Final = (
    _PERMIT,
    certificate_for(NODE, public_key_of(HOST.peer_id), MEMBER, not_before=NOW, expires_at=NOW + 3600),
)
_POLICY: Final = Policy(
    revision=7,
    allow=tuple(sorted(map(public_key_of, PEERS[:2]))),
    roots=(public_key_of(NODE.peer_id),),
    deny=(Denial(public_key_of(STRANGER.peer_id), b"", NOW),),
    previous=bytes(32),
)
_TOKENS: Final = (
    JoinToken((public_key_of(OWNER.peer_id),), (ADDRESSES[3],), _CHAIN),
    JoinToken((public_key_of(OWNER.peer_id),), (), _CHAIN[:1], NODE.seed),
    JoinToken((public_key_of(OWNER.peer_id),), (), _CHAIN, b"", public_key_of(HOST.peer_id), _POLICY.roots),
    JoinToken((public_key_of(OWNER.peer_id),), (), _CHAIN, b"", public_key_of(HOST.peer_id), (), "acme"),
)
_REVOCATION: Final = Revocation.by(OWNER, public_key_of(HOST.peer_id), NOW)


def _chain(shown: bytes) -> None:
    chain = decode_chain(shown)
    for one in chain:
        certificate.is_genuine(one)
        scope_in(one.scope)


def _token_of(raw: bytes) -> str:
    return PREFIX + base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _raw_token(token: JoinToken) -> bytes:
    body = token.text().removeprefix(PREFIX)
    return base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))


def _trust_lines(*trusts: TrustStatement) -> bytes:
    lines = ["11", "1111"]
    for one in trusts:
        key = base58.b58encode(b"\0" + public_key_of(one.issued_for)).decode()
        signature = base58.b58encode(b"\0" + one.signature).decode()
        lines += [key, signature, str(one.expires_at), str(one.issued_at)]
    return "\n".join(lines).encode()


def _trust_of(issuer: Identity, issued_for: str) -> TrustStatement:
    unsigned = TrustStatement(issuer.peer_id, issued_for, NOW, NOW + 3600, b"")
    return msgspec.structs.replace(unsigned, signature=issuer.sign(unsigned.digest()))


def _certificate_of_trusts(text: str) -> None:
    for one in chain_from_text(text):
        trust.is_genuine(one)


def _given_to_trust_graph(body: bytes) -> None:
    """Trusts and a revocation, as scripts give them."""
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):  # those of a script have been decoded by others
        return
    forms: tuple[type[AquaCertificate | AquaRevocation], ...] = (AquaCertificate, AquaRevocation)
    for form in forms:
        try:
            value = msgspec.convert(given, form)
        except msgspec.ValidationError:
            continue
        if isinstance(value, AquaRevocation):
            signature = trust.bytes_of_base58(value.signature, "signature")
            trust.is_genuine(TrustRevocation(value.revoked_by, value.revoked_peer_id, value.revoked_at, signature))
            continue
        for one in trust.chain_of(list(map(_trust_given, value.chain))):
            trust.is_genuine(one)


def _trust_given(one: AquaTrust) -> TrustStatement:
    signature = trust.bytes_of_base58(one.signature, "signature")
    return TrustStatement("", one.issued_for, one.issued_at, one.expires_at, signature)


def _as_aqua(one: TrustStatement) -> AquaTrust:
    return AquaTrust(one.issued_for, one.expires_at, shown_signature(one), "Ed25519", one.issued_at)


_TRUSTS: Final = (_trust_of(OWNER, OWNER.peer_id), _trust_of(OWNER, NODE.peer_id))

PERMISSIONS: Final = (
    Parser(
        "a policy", lambda body: policy_in(POLICY_TYPE, body, OWNER.peer_id), (InvalidPolicy,),
        [encode_policy(_POLICY), encode_policy(Policy(revision=1, open=True))], longest=4 * MAX_POLICY,
    ),
    Parser(
        "a policy of a later version", lambda body: policy_in("policy/9", body, OWNER.peer_id),
        (InvalidPolicy,), [encode_policy(_POLICY)], longest=4 * MAX_POLICY,
    ),
    Parser("a scope", scope_in, (), [_SCOPE.encoded()], longest=4096),
    Parser(
        "a chain of certificates", _chain, (CertificateError,), [encode_chain(_CHAIN), encode_chain(_CHAIN[:1])],
        longest=64 * 1024,
    ),
    Parser(
        "a chain of certificates as text", chain_in_text, (CertificateError,), [text_of(_CHAIN).encode()], None,
        longest=4 * MAX_TEXT,
    ),
    Parser(
        "what is in a join token", lambda body: parse_token(_token_of(body)), (TokenError,),
        list(map(_raw_token, _TOKENS)), longest=LONGEST_TOKEN,
    ),
    Parser(
        "a join token", _text(parse_token), (TokenError,), [token.text().encode() for token in _TOKENS], None,
        longest=4 * LONGEST_TOKEN,
    ),
    Parser(
        "an entry of a revocation list", lambda body: revocation.genuine([body], [public_key_of(OWNER.peer_id)]), (),
        [encode_entry(_REVOCATION)], longest=4 * ENTRY_BYTES,
    ),
    Parser(
        "a certificate of trusts as text", _text(_certificate_of_trusts), (TrustForm, PeerIdParseError),
        [_trust_lines(*_TRUSTS)], None, longest=64 * 1024,
    ),
    Parser(
        "trust statements of scripts", _given_to_trust_graph, (TrustForm, PeerIdParseError),
        [
            msgspec.json.encode(AquaCertificate(list(map(_as_aqua, _TRUSTS)))),
            msgspec.json.encode(AquaRevocation(NODE.peer_id, NOW, "1" * 64, "Ed25519", OWNER.peer_id)),
        ],
        JSON, 64 * 1024,
    ),
)  # fmt: skip

# Frames, and calls through relays

_FRAMES: Final[tuple[protocol.Frame, ...]] = (
    protocol.Hello(0, True, bytes(8)),
    protocol.Request(0, "registry.put", cbor2.dumps(build(PutBody.of(ITEMS))), 6000),
    protocol.Response(0, cbor2.dumps(list(ADDRESSES))),
    protocol.Refused(1, "malformed", "not a peer id"),
    protocol.Cancel(2),
    protocol.Ping(),
    protocol.Pong(8),
    protocol.Bye(protocol.Reason.FULL, (protocol.Referral(HOST.peer_id, ADDRESSES[:2]),)),
    protocol.Failed(3, protocol.Fault.NO_SUCH_METHOD),
    protocol.Keep(False),
    protocol.Stay(),
)


def _frame(body: bytes) -> None:
    frame = protocol.parse(decode_item(body, max_items=MOST_IN_FRAME))
    match frame:
        case protocol.Request():
            assert frame.timeout_seconds >= 0
        case protocol.Bye():
            assert len(frame.others_to_try) <= 16
            str(frame.reason)


def _stream_of_frames(received: bytes) -> Iterator[None]:
    decoder = FrameDecoder(LONGEST)
    for number, item in enumerate(decoder.feed(received), start=1):
        protocol.parse(item)
        if number % 16 == 0:  # as a link does
            yield


_OFFER: Final = PendingSession(OWNER, HOST.peer_id, float(NOW))
_SESSION, _ACCEPTED = accept(HOST, _OFFER.sealed, opening_of(_OFFER.sealed, HOST.peer_id), bytes(16))

CALLS: Final = (
    Parser("any item", decode, (DecodeError,), [*_VALUES, cbor2.dumps([1, {"a": [None, 1.5, b"x"]}])]),
    Parser("a frame", _frame, (FrameError,), [protocol.encode(frame)[4:] for frame in _FRAMES]),
    Parser(
        "frames in one chunk",
        _stream_of_frames,
        (FrameError,),
        [b"".join(map(protocol.encode, _FRAMES)), *(protocol.encode(frame) * 20 for frame in _FRAMES)],
        form=None,
        longest=64 * 1024,
    ),
    Parser(
        "an opening through relays", lambda body: opening_of(body, HOST.peer_id), (SecureChannelError,), [_OFFER.sealed]
    ),
    Parser("an acceptance through relays", _OFFER.accepted, (SecureChannelError,), [_ACCEPTED]),
)

# Peers, their addresses and records


def _peer_record(*relays: tuple[str, Sequence[str]]) -> bytes:
    return sign_peer_record(HOST, list(ADDRESSES[:3]), relays, float(NOW)).sealed


class _Stream:
    """Bytes that have come, and then the end."""

    def __init__(self, received: bytes) -> None:
        self._left = received

    async def read_some(self, max_bytes: int) -> bytes:
        chunk, self._left = self._left[:max_bytes], self._left[max_bytes:]
        return chunk

    async def write(self, payload: bytes) -> None:
        raise NotImplementedError

    def hold(self, amount: int) -> bool:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError

    async def reset(self) -> None:
        raise NotImplementedError


def _at_once(result: Awaitable[object]) -> object:
    """What comes of something that never has to wait here."""
    ended = outcome.capture(cast("Any", result).send, None)
    assert isinstance(ended, outcome.Error), "it waits"
    if isinstance(ended.error, StopIteration):
        return ended.error.value
    return ended.unwrap()


def _kad(received: bytes) -> Iterator[None]:
    reader = MessageReader(_Stream(received), LONGEST_ANSWER)
    while (message := _at_once(reader.next())) is not None:
        for _ in told(cast("Message", message)):
            yield
        yield


def _kad_answer() -> bytes:
    message = Message(type=Message.MessageType.FIND_NODE, key=b"key")
    tell(message, [KnownPeer(peer_id, ADDRESSES[:2]) for peer_id in PEERS])
    return encoded(message)


def _kad_without_length(body: bytes) -> Iterator[None]:
    return _kad(to_varint(len(body)) + body)


def _addresses(body: bytes) -> object:
    book = AddressBook(max_peers=4, max_addresses_per_peer=16)
    return book.add(HOST.peer_id, body.decode(errors="surrogateescape").split("\n"))


_PROTOBUF_ERRORS: Final = (ValueError, ProtobufDecodeError)

OVERLAY: Final = (
    Parser(
        "a signed peer record", open_peer_record, (BadPeerRecord,),
        [_peer_record(), _peer_record((NODE.peer_id, ADDRESSES[:1]), (OWNER.peer_id, ()))],
        form=PROTOBUF, longest=64 * 1024,
    ),
    Parser("a message of Kad-DHT", _kad_without_length, _PROTOBUF_ERRORS, [_kad_answer()[2:]], PROTOBUF, 256 * 1024),
    Parser("Kad-DHT on a stream", _kad, _PROTOBUF_ERRORS, [_kad_answer(), _kad_answer() * 3], None, 256 * 1024),
    Parser("a peer id", _text(public_key_of), (PeerIdError,), [peer.encode() for peer in PEERS], None),
    Parser("a peer id's position", _text(peer_position), (PeerIdError,), [peer.encode() for peer in PEERS], None),
    Parser("an address", _text(parse_dialable), (AddressError,), [one.encode() for one in ADDRESSES[:4]], None),
    Parser("an address of a peer", _text(parse_peer_address), (AddressError,), [ADDRESSES[3].encode()], None),
    Parser("addresses told by others", _addresses, (), ["\n".join(ADDRESSES).encode()], None),
)  # fmt: skip

# The muxer


def _header(kind: int, flags: int, stream_id: int, value: int) -> bytes:
    return bytes([0, kind]) + flags.to_bytes(2, "big") + stream_id.to_bytes(4, "big") + value.to_bytes(4, "big")


_DATA, _WINDOW, _PING = range(3)
_SYN, _ACK, _FIN, _RST = 1, 2, 4, 8


def _muxed(received: bytes) -> None:
    session = YamuxSession(initiator=True)
    ours = session.open()
    session.send(ours, b"hello")
    try:
        for start in range(0, len(received), 65_536):
            for stream in session.receive(received[start : start + 65_536]):
                if stream.unread:
                    session.read(stream, 65_536)
            session.take_opened()
            while session.behind:
                session.receive(b"")
            session.take_output(65_536)
    except SessionEnded as end:
        str(end.code)
        raise


MUXER: Final = (
    Parser(
        "frames of the muxer",
        _muxed,
        (SessionEnded,),
        [
            _header(_WINDOW, _SYN, 2, 0) + _header(_DATA, 0, 2, 5) + b"hello" + _header(_DATA, _FIN, 2, 0),
            _header(_WINDOW, _ACK, 1, 1000) + _header(_DATA, 0, 1, 3) + b"abc" + _header(_PING, _SYN, 0, 7),
            b"".join(_header(_WINDOW, _SYN, 2 * n, 0) for n in range(1, 40)),
            (_header(_WINDOW, _SYN, 2, 0) + _header(_WINDOW, _RST, 2, 0)) * 30,
            _header(_PING, _SYN, 0, 1) * 300,
            _header(_WINDOW, _SYN, 2, 0) + (_header(_DATA, 0, 2, 1) + b"x") * 2000,
        ],
        form=None,
        longest=256 * 1024,
    ),
)

# Particles, the interpreter, and JSON of JavaScript clients

_PARTICLE: Final = encode_particle(
    sign_particle(OWNER, particle_id="id", timestamp=NOW * 1000, ttl=5000, script="(null)", data=b"{}")
)


def _particle(message: bytes) -> None:
    """Its data are taken in pieces by turns: here only the first few, which must be as quick."""
    particle, pieces = decode_particle(message, 128 * 1024)
    for _, _ in zip(range(4), pieces, strict=False):
        pass
    particle.is_genuine()


def _requests_of_a_step() -> bytes:
    arguments = msgspec.msgpack.encode([KEY.id, NOW, [1, 2, 3], {"a": None}])
    tetraplets = msgspec.msgpack.encode([[Tetraplet("peer", "service", "function", "")]] * 4)
    request = {"service_id": "registry", "function_name": "get", "arguments": arguments, "tetraplets": tetraplets}
    return msgspec.msgpack.encode({1: request, 2: request})


def _argument(body: bytes) -> None:
    try:
        value = json.loads(body)
    except ValueError:  # those of a script have been decoded by others
        return
    for aqua_type in ("Key", "Record", "RecordMetadata", "Tombstone", "WeightResult", "[]Record", "[]u8", "?string"):
        try:
            from_json(aqua_type, "it", value)
        except (TypeError, ValueError):
            continue


PARTICLES: Final = (
    Parser(
        "a particle", lambda body: _particle(MSGPACK_PREFIX + body), (BadParticle,),
        [_PARTICLE[2:]], MSGPACK, 512 * 1024,
    ),
    Parser("a particle's length", parse_length, (BadParticle,), [framed(bytes(n))[:5] for n in (1, 200, 70_000)], None),
    Parser(
        "calls of a script", lambda body: parse_requests(MSGPACK_PREFIX + body, 2**19), (InterpreterFailed,),
        [_requests_of_a_step()], MSGPACK, 512 * 1024,
    ),
    Parser(
        "arguments as JSON", _argument, (),
        [json.dumps(to_json(value)).encode() for value in (KEY, RECORD, TOMBSTONE)], JSON, 64 * 1024,
    ),
)  # fmt: skip

PARSERS: Final[tuple[Parser, ...]] = (
    *CALLS,
    *VALUES,
    *HEALTH,
    *PRESENCE,
    *PERMISSIONS,
    *BODIES,
    *ANSWERS,
    *OVERLAY,
    *MUXER,
    *PARTICLES,
)
