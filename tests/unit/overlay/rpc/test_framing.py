"""Frames cut and joined."""

from __future__ import annotations

import itertools
import time
from datetime import UTC, datetime

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.limits.decoder import MAX_ITEMS
from overlay.rpc.framing import FrameDecoder, FrameError, decode_item, encode_frame, encode_item

MAX_FRAME = 1024
ITEMS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5) | st.binary(max_size=5), inner, max_size=4)
    ),
    max_leaves=10,
)


def framed(encoded: bytes) -> bytes:
    return len(encoded).to_bytes(4, "big") + encoded


def cut(joined: bytes, at: list[int]) -> list[bytes]:
    places = [0, *sorted(place % (len(joined) + 1) for place in at), len(joined)]
    return [joined[start:end] for start, end in itertools.pairwise(places)]


@given(items=st.lists(ITEMS, max_size=6), at=st.lists(st.integers(min_value=0, max_value=10**6), max_size=20))
def test_items_survive_any_cutting(items: list[object], at: list[int]) -> None:
    decoder = FrameDecoder(MAX_FRAME * 64)
    received = [item for chunk in cut(b"".join(map(encode_frame, items)), at) for item in decoder.feed(chunk)]
    assert received == items
    assert decoder.buffered == 0


@given(garbage=st.binary(max_size=200), at=st.lists(st.integers(min_value=0, max_value=200), max_size=5))
def test_garbage_raises_nothing_but_a_frame_error(garbage: bytes, at: list[int]) -> None:
    for sent in (garbage, framed(garbage)):
        decoder = FrameDecoder(MAX_FRAME)
        try:
            for chunk in cut(sent, at):
                list(decoder.feed(chunk))
        except FrameError:
            pass
        assert decoder.buffered <= MAX_FRAME + 4


def test_byte_by_byte_is_as_good_as_at_once() -> None:
    decoder = FrameDecoder(MAX_FRAME)
    received = [item for byte in encode_frame([1, "two"]) * 2 for item in decoder.feed(bytes([byte]))]
    assert received == [[1, "two"], [1, "two"]]


def test_too_long_a_frame_is_refused_before_it_is_buffered() -> None:
    decoder = FrameDecoder(MAX_FRAME)
    with pytest.raises(FrameError, match="1025 bytes"):
        list(decoder.feed((MAX_FRAME + 1).to_bytes(4, "big") + b"x" * 100))
    assert decoder.buffered == 0


def test_longest_frame_is_accepted() -> None:
    longest = b"x" * (MAX_FRAME - 3)
    assert [*FrameDecoder(MAX_FRAME).feed(encode_frame(longest))] == [longest]


def test_empty_frame_is_refused() -> None:
    with pytest.raises(FrameError):
        list(FrameDecoder(MAX_FRAME).feed(bytes(4)))


def test_large_frame_in_many_chunks_costs_linear_time() -> None:
    frame = encode_frame(b"x" * 8_000_000)
    decoder = FrameDecoder(len(frame))
    started = time.process_time()
    received = [item for start in range(0, len(frame), 1000) for item in decoder.feed(frame[start : start + 1000])]
    assert len(received) == 1
    assert time.process_time() - started < 2, "copying everything on each of 8,000 chunks takes longer"


@pytest.mark.parametrize(
    ("bomb", "encoded"),
    [
        ("nesting", b"\x81" * 100_000 + b"\x00"),
        ("long list", bytes.fromhex("9bffffffffffffffff")),
        ("long text", bytes.fromhex("7b000000ffffffffff")),
        ("long map", bytes.fromhex("bb000000ffffffffff")),
        ("shared reference to itself", bytes.fromhex("d81c81d81d00")),
        ("big integer", cbor2.dumps(2**70)),
        ("decimal with a large exponent", bytes.fromhex("c4821b00ffffffffffffff01")),
        ("regular expression", bytes.fromhex("d8236361282a")),
        ("date", cbor2.dumps(datetime(2024, 1, 1, tzinfo=UTC))),
        ("set", cbor2.dumps({1, 2})),
        ("unknown tag", cbor2.dumps(cbor2.CBORTag(65535, 1))),
        ("indefinite length", bytes.fromhex("9f01ff")),
        ("duplicate key", bytes.fromhex("a2616101616102")),
        ("integer key", bytes.fromhex("a10101")),
        ("text that isn't UTF-8", bytes.fromhex("61ff")),
        ("nothing", b""),
    ],
)
def test_bomb_is_refused_cheaply(bomb: str, encoded: bytes) -> None:
    started = time.process_time()
    with pytest.raises(FrameError):
        decode_item(encoded)
    assert time.process_time() - started < 0.5, f"{bomb} took long"


def test_what_cbor_cannot_hold_is_a_frame_error() -> None:
    with pytest.raises(FrameError):
        encode_item({"key": object()})


def test_more_items_than_anybody_decodes_are_not_sent() -> None:
    assert encode_item([0] * (MAX_ITEMS - 1))
    with pytest.raises(FrameError, match=f"can't be encoded: has more than {MAX_ITEMS} items"):
        encode_item([0] * MAX_ITEMS)
