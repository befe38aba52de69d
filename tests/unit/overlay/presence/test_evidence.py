"""What is passed on of hosts, by a node that may lie: what isn't signed by who it is of doesn't count."""

from __future__ import annotations

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from overlay.identity import Identity
from overlay.presence.evidence import Evidence, encode_evidence, genuine_evidence
from overlay.presence.statements import Presence, Version, Word, sign

HOST, WITNESS, LIAR = (Identity.from_seed(bytes([number]) * 32) for number in (1, 2, 3))
PRESENCE = sign(HOST, Presence(HOST.peer_id, Version(5, 2), exceptions=b"what fails"))
WORD = sign(WITNESS, Word(WITNESS.peer_id, HOST.peer_id, Version(5, 2), True, 7, 30))


def read(presence: Presence | None, *words: Word) -> Evidence:
    return genuine_evidence(HOST.peer_id, encode_evidence(Evidence(presence, words)))


def test_what_is_signed_counts() -> None:
    found = read(PRESENCE, WORD)
    assert (found.version, found.exceptions, found.accusers) == (Version(5, 2), b"what fails", (WITNESS.peer_id,))
    assert not found.has_left
    assert read(sign(HOST, replace(PRESENCE, is_leaving=True))).has_left
    assert read(None) == Evidence()


@pytest.mark.parametrize(
    "presence",
    [
        replace(PRESENCE, exceptions=b""),
        replace(PRESENCE, version=Version(6)),
        replace(PRESENCE, is_leaving=True),
        sign(LIAR, PRESENCE),
        sign(LIAR, replace(PRESENCE, peer_id=LIAR.peer_id)),
    ],
)
def test_a_presence_that_is_not_the_hosts_own_counts_for_nothing(presence: Presence) -> None:
    assert read(presence, WORD) == Evidence()


@pytest.mark.parametrize(
    "word",
    [
        replace(WORD, witness=LIAR.peer_id),
        sign(LIAR, WORD),
        sign(WITNESS, replace(WORD, accused=LIAR.peer_id)),
        sign(WITNESS, replace(WORD, version=Version(5, 1))),
        sign(WITNESS, replace(WORD, is_down=False)),
    ],
)
def test_a_word_counts_of_its_witness_about_this_host_at_this_version(word: Word) -> None:
    assert read(PRESENCE, word).accusers == ()


def test_each_witness_counts_once() -> None:
    assert read(PRESENCE, WORD, WORD, sign(WITNESS, replace(WORD, number=8))).accusers == (WITNESS.peer_id,)


@given(
    st.one_of(st.binary(max_size=200), st.recursive(st.integers() | st.text() | st.none(), st.lists).map(cbor2.dumps))
)
def test_anything_else_is_no_evidence(encoded: bytes) -> None:
    assert genuine_evidence(HOST.peer_id, encoded) == Evidence()
