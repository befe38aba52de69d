"""What peers say and sign about who is alive: its form, and that nothing hostile gets through."""

from __future__ import annotations

import cbor2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.identity import Identity
from overlay.presence.messages import (
    MOST_HOSTS,
    MOST_MESSAGES,
    Accused,
    AskAbout,
    Beat,
    ClientGone,
    Hint,
    KnownVersion,
    Message,
    ProofWanted,
    Proven,
    Said,
    SubscribeTo,
    Told,
    encode,
    notices,
    parse,
)
from overlay.presence.statements import Presence, Proof, Version, Word, is_genuine, sign

IDENTITY = Identity.from_seed(bytes(range(32)))
OWN = IDENTITY.peer_id
NODE = Identity.from_seed(bytes(32)).peer_id
PRESENCE = sign(IDENTITY, Presence(OWN, Version(1_700_000_000_000, 3), False, b"some", (NODE,)))
WORD = sign(IDENTITY, Word(OWN, "accused", Version(7, 1), True, 12, 30))
PROOF = sign(IDENTITY, Proof(OWN, Version(7, 1), b"12345678", "replica"))
MESSAGES: list[Message] = [
    Beat(Version(1, 2)),
    Told(PRESENCE),
    KnownVersion(Version(1, 2)),
    Said(WORD),
    Hint("host"),
    Accused(Version(1, 2)),
    AskAbout("host", b"12345678", Version(1, 2)),
    ProofWanted("host", b"12345678", "replica"),
    Proven(PROOF),
    SubscribeTo(("host", "other"), 600),
    ClientGone("client"),
]


def test_messages_come_through() -> None:
    assert parse(encode(MESSAGES)) == MESSAGES


def test_newer_messages_and_fields_are_passed_over() -> None:
    raw = cbor2.loads(encode([Hint("host"), Beat(Version(1, 2))]))
    raw[0].append("more")
    raw.insert(0, [99, "something new"])
    assert parse(cbor2.dumps(raw)) == [Hint("host"), Beat(Version(1, 2))]


@pytest.mark.parametrize("node", ["0", "x", "é", "1" * 64, f"{NODE} "])
def test_a_light_client_is_reached_through_peers_alone(node: str) -> None:
    assert is_genuine(sign(IDENTITY, Presence(OWN, Version(1), via=(NODE,))))
    assert not is_genuine(sign(IDENTITY, Presence(OWN, Version(1), via=(NODE, node))))


@pytest.mark.parametrize("statement", [PRESENCE, WORD, PROOF])
def test_statement_is_genuine_and_any_change_shows(statement: Presence | Word | Proof) -> None:
    assert is_genuine(statement)
    others = {str: OWN[:-1] + "x", int: 99, bool: True, bytes: b"87654321", Version: Version(8, 0), tuple: ("other",)}
    for name in statement.__struct_fields__:
        value = getattr(statement, name)
        changed = (not value) if type(value) is bool else others[type(value)]
        assert not is_genuine(msgspec.structs.replace(statement, **{name: changed}))


def test_statement_of_one_kind_is_none_of_another() -> None:
    fields = ("host", Version(7, 1), b"12345678", "replica")
    proof = Proof(OWN, *fields[1:])
    for statement in (PRESENCE, WORD):
        assert not is_genuine(msgspec.structs.replace(proof, signature=statement.signature))


@given(st.binary(max_size=200))
def test_any_bytes_are_parsed_or_passed_over(encoded: bytes) -> None:
    parse(encoded)


@given(st.recursive(st.none() | st.integers() | st.binary(max_size=9) | st.text(max_size=9), st.lists, max_leaves=20))
def test_any_items_are_parsed_or_passed_over(items: object) -> None:
    encoded = cbor2.dumps([[kind, items] for kind in range(12)])
    assert all(isinstance(message, Message) for message in parse(encoded))


def test_notice_is_bounded() -> None:
    assert len(parse(encode([Hint("host")] * (2 * MOST_MESSAGES)))) == MOST_MESSAGES
    assert parse(encode([Told(msgspec.structs.replace(PRESENCE, exceptions=bytes(5000)))])) == []


def test_subscriptions_to_one_peer_share_messages_and_all_of_them_arrive() -> None:
    hosts = [f"host {number}" for number in range(MOST_HOSTS * 2 + 1)]
    said = [parse(notice) for notice in notices([SubscribeTo((host,), 600) for host in hosts])]
    assert [len(messages) for messages in said] == [3]
    assert [host for message in said[0] if isinstance(message, SubscribeTo) for host in message.hosts] == hosts


def test_what_is_too_much_for_one_notice_goes_in_several() -> None:
    hints = [Hint(f"host {number}") for number in range(MOST_MESSAGES * 5)]
    large = [Told(Presence(f"host {number}", Version(1), exceptions=b"x" * 4000)) for number in range(100)]
    for messages in (hints, large):
        said = [parse(notice) for notice in notices(messages)]
        assert [message for each in said for message in each] == messages
