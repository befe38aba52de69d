"""What is decoded, what is refused, and how long either takes."""

from __future__ import annotations

import ast
import gc
import itertools
import math
import random
import time
from contextlib import suppress
from pathlib import Path

import cbor2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from overlay.limits.decoder import (
    MAX_CONTAINERS,
    MAX_DEPTH,
    MAX_ITEMS,
    DecodeError,
    check_items,
    decode,
    decode_counted,
)

ROOT = Path(__file__).parents[4]
LONGEST = 0.02  # seconds on the loop, for any megabyte
ORDINARY = 0.0055  # seconds for `TEXTS_OF_18`, measured on two idle cores

TEXTS = st.text(max_size=30) | st.sampled_from(["x" * size for size in (23, 24, 255, 256, 70_000)])
BLOBS = st.binary(max_size=30) | st.sampled_from([bytes(size) for size in (23, 24, 255, 256, 70_000)])
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.floats(allow_nan=False, width=16)
    | TEXTS
    | BLOBS,
    lambda inner: st.lists(inner, max_size=30) | st.dictionaries(TEXTS | BLOBS, inner, max_size=5),
    max_leaves=40,
)


def head(kind: int, count: int) -> bytes:
    """An item's first byte, and its length in four more."""
    return bytes([kind << 5 | 26]) + count.to_bytes(4, "big")


def listed(*items: bytes) -> bytes:
    return head(4, len(items)) + b"".join(items)


EMPTY_LISTS = listed(*[b"\x80"] * (MAX_CONTAINERS - 1))
TEXTS_OF_18 = listed(*[b"\x72" + b"x" * 18] * (MAX_ITEMS - 1))


def seconds(encoded: bytes) -> float:
    """How long decoding keeps this thread busy."""
    started = time.thread_time()
    with suppress(DecodeError):
        decode(encoded)
    return time.thread_time() - started


def decoded_in_time(encoded: bytes) -> bool:
    """Whether decoding takes less than `LONGEST`, on a machine that is as busy as it likes.

    What takes `ORDINARY` on an idle one is timed by turns with it: it says how fast the machine is at the moment. The
    fastest of many tries counts, which had the caches to itself.
    """
    taken, ordinary = seconds(encoded), math.inf
    for _ in range(200):
        if taken < LONGEST:
            return True
        ordinary = min(ordinary, seconds(TEXTS_OF_18))
        if taken < LONGEST * ordinary / ORDINARY:
            return True
        taken = min(taken, seconds(encoded))
    return False


# What we use


@given(value=VALUES, canonical=st.booleans())
def test_what_we_use_is_decoded_as_it_was_encoded(value: object, canonical: bool) -> None:
    assert decode(cbor2.dumps(value, canonical=canonical)) == value


@pytest.mark.parametrize("number", [math.inf, -math.inf, -0.0, 1.5, 1e300, 0, 23, 24, 2**64 - 1, -(2**64)])
def test_numbers_keep_their_type_and_value(number: float) -> None:
    decoded = decode(cbor2.dumps(number))
    assert type(decoded) is type(number)
    assert str(decoded) == str(number)


def test_not_a_number_is_decoded() -> None:
    decoded = decode(cbor2.dumps(math.nan))
    assert isinstance(decoded, float)
    assert math.isnan(decoded)


def test_longer_encodings_of_lengths_are_read_alike() -> None:
    for size in (1, 2, 4, 8):
        info = 24 + size.bit_length() - 1
        for kind, content, value in ((2, b"a", b"a"), (3, b"a", "a"), (4, b"\x00", [0]), (5, b"\x61a\x00", {"a": 0})):
            assert decode(bytes([kind << 5 | info]) + (1).to_bytes(size, "big") + content) == value


def test_strings_of_every_length_are_skipped_to_their_end() -> None:
    for size in (*range(300), 65_535, 65_536, 70_000):
        for value in (b"\xff" * size, "\x1f" * size):
            assert decode(cbor2.dumps([value, 1])) == [value, 1]


@pytest.mark.parametrize("count", [MAX_ITEMS - 1, MAX_ITEMS])
@pytest.mark.parametrize("item", [b"\x00", b"\x18\xff", b"\x59\x01\x00" + bytes(256)])
def test_items_are_counted_exactly(count: int, item: bytes) -> None:
    long_ones = item if len(item) < 100 else b"\x00"  # a megabyte holds 4,000 of the long ones
    items = [long_ones] * (count - 2000) + [item] * 1000 + [long_ones] * 1000
    if count < MAX_ITEMS:  # the list itself is one
        assert len(decode(listed(*items))) == count  # type: ignore[arg-type]
    else:
        with pytest.raises(DecodeError, match=f"more than {MAX_ITEMS} items"):
            decode(listed(*items))


@pytest.mark.parametrize("count", [MAX_CONTAINERS, MAX_CONTAINERS + 1])
@pytest.mark.parametrize(
    "container", [b"\x80", b"\xa0", b"\x98\x00", b"\xb8\x00", b"\x9b" + bytes(8), b"\x82\x00\x41\x80"]
)
@pytest.mark.parametrize("between", [b"", b"\x58\xff" + b"\x80" * 255, b"\x59\x01\x00" + b"\x80" * 256])
def test_lists_and_maps_are_counted_exactly(count: int, container: bytes, between: bytes) -> None:
    containers = count - 1  # the list around is one
    items = [container] * containers
    items[100:100] = [between] * (20 if between else 0)
    if count <= MAX_CONTAINERS:
        assert len(decode(listed(*items, b"\x00"))) == len(items) + 1  # type: ignore[arg-type]
    else:
        with pytest.raises(DecodeError, match=f"more than {MAX_CONTAINERS} lists and maps"):
            decode(listed(*items, b"\x00"))


@pytest.mark.parametrize("depth", [MAX_DEPTH, MAX_DEPTH + 1])
def test_nesting_is_bounded(depth: int) -> None:
    for opened in (b"\x81", b"\xa1\x61a"):
        encoded = opened * depth + b"\x00"
        if depth <= MAX_DEPTH:
            assert decode(encoded)
        else:
            with pytest.raises(DecodeError, match="depth"):
                decode(encoded)


def test_size_is_bounded_when_asked() -> None:
    encoded = cbor2.dumps(b"x" * 100)
    assert decode(encoded, max_bytes=len(encoded)) == b"x" * 100
    with pytest.raises(DecodeError, match="has 102 bytes, more than 101"):
        decode(encoded, max_bytes=101)


# What we don't use

ALLOWED_FIRSTS = {
    *(kind << 5 | info for kind in (0, 1, 2, 3, 4, 5) for info in range(28)),
    *(0xF4, 0xF5, 0xF6, 0xF9, 0xFA, 0xFB),
}


def test_first_byte_decides_alone_what_is_not_used() -> None:
    """Within lists, maps, keys and nothing, whatever follows."""
    befores, afters = (b"", b"\x81", b"\xa1\x61a", b"\xa1", b"\x00" * 100), (b"", bytes(300), b"\xff" * 300)
    for first, before, after in itertools.product(range(256), befores, afters):
        encoded = before + bytes([first]) + after
        if first in ALLOWED_FIRSTS:
            with suppress(DecodeError):
                decode(encoded)
        else:
            with pytest.raises(DecodeError, match=f"0x{first:02x}"):
                check_items(encoded)


@pytest.mark.parametrize(
    "key", [b"\x01", b"\x20", b"\x80", b"\xa0", b"\xf6", b"\xf4", b"\xf9\x3c\x00", b"\x81\x61a", b"\x82\x80\x80"]
)
def test_only_text_and_bytes_are_keys(key: bytes) -> None:
    with pytest.raises(DecodeError, match="key"):
        decode(b"\xa1" + key + b"\x00")


@pytest.mark.parametrize("key", ["a", b"a", "x" * 100_000])
def test_key_is_there_once_and_told_shortly(key: str | bytes) -> None:
    encoded = cbor2.dumps(key)
    with pytest.raises(DecodeError, match="key") as refused:
        decode(b"\xa2" + encoded + b"\x01" + encoded + b"\x02")
    assert len(str(refused.value)) < 300
    assert decode(b"\xa2\x61a\x01\x41a\x02") == {"a": 1, b"a": 2}


def shared_references_in_a_key() -> bytes:
    """Each of 50 lists holds the one before twice: hashing the last, as a key, visits 2 to the power of 50 of them."""
    nested = b"\xd8\x1c\x80"
    for number in range(50, 0, -1):  # they are numbered in the order of their beginnings
        nested = b"\xd8\x1c\x82" + nested + b"\xd8\x1d" + cbor2.dumps(number)
    return b"\xa1" + nested + b"\x00"


ATTACKS = {
    "shared references in a key": shared_references_in_a_key(),
    "shared reference to itself": bytes.fromhex("d81c81d81d00"),
    "string references": bytes.fromhex("d90100")
    + listed(b"\x7a\x00\x00\x10\x00" + b"x" * 4096, *[b"\xd8\x19\x00"] * 9),
    "regular expression": b"\xd8\x23" + cbor2.dumps("(" * 10_000 + ")" * 10_000),
    "decimal with a large exponent": bytes.fromhex("c4821b00ffffffffffffff01"),
    "big integer": b"\xc2" + cbor2.dumps(b"\xff" * 900_000),
    "MIME": b"\xd8\x24" + cbor2.dumps("Content-Type: multipart/mixed; boundary=a\n\n" + "--a\n" * 200_000),
    "tags": b"\xd9\xd9\xf7" * 300_000,
    "nesting": b"\x81" * 1_000_000,
    "nested maps": b"\xa1\x60" * 500_000,
    "maps as keys": b"\xa1" * 1_000_000,
    "a megabyte of []": listed(*[b"\x80"] * 1_000_000),
    "a megabyte of {}": listed(*[b"\xa0"] * 1_000_000),
    "a megabyte of [[]]": listed(*[b"\x81\x80"] * 500_000),
    "a megabyte of numbers": listed(*[b"\x00"] * 1_000_000),
    "a megabyte that is no item of a list": b"\x00" * 1_000_000,
    "as many [] as are allowed": EMPTY_LISTS,
    "as many {} as are allowed": listed(*[b"\xa0"] * (MAX_CONTAINERS - 1)),
    "as many texts as are allowed": TEXTS_OF_18,
    "as many keys as are allowed": head(5, MAX_ITEMS // 2 - 1)
    + b"".join(
        b"\x44" + key.to_bytes(4, "big") + (b"\x80" if key < MAX_CONTAINERS - 1 else b"\x00")
        for key in range(MAX_ITEMS // 2 - 1)
    ),
    "as deep as is allowed": listed(*[b"\x81" * (MAX_DEPTH - 2) + b"\x80"] * (MAX_CONTAINERS // MAX_DEPTH)),
    "long strings between": listed(*[b"\x59\x01\x00" + bytes(256), *[b"\x80"] * 2, *[b"\x00"] * 8] * 3600),
    "as many [] and numbers as are allowed": listed(*[b"\x80", b"\x00", b"\x00", b"\x00"] * (MAX_CONTAINERS - 1)),
    "long strings and lists": listed(*[b"\x59\x01\x00" + bytes(256), *[b"\x80"] * 10] * 3600),
    "long list": bytes.fromhex("9bffffffffffffffff"),
    "long text": bytes.fromhex("7b000000ffffffffff"),
    "long bytes": bytes.fromhex("5bffffffffffffffff"),
    "long map": bytes.fromhex("bb000000ffffffffff"),
    "indefinite lists": b"\x9f" * 1_000_000,
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_any_megabyte_is_decoded_or_refused_in_time(attack: str) -> None:
    assert len(ATTACKS[attack]) <= 1_100_000
    assert decoded_in_time(ATTACKS[attack])


def test_known_attack_on_cbor2_is_small() -> None:
    assert len(ATTACKS["shared references in a key"]) < 430
    with pytest.raises(DecodeError, match="0xd8"):
        decode(ATTACKS["shared references in a key"])


# Anything


def grammar_aware(random_: random.Random, longest: int) -> bytes:
    """Items that mostly are well-formed, nested, of all kinds and of extreme counts; at times cut or damaged."""
    firsts = sorted(ALLOWED_FIRSTS)
    written = bytearray()
    while len(written) < longest and random_.random() > 0.01:
        first = random_.choice(firsts) if random_.random() < 0.995 else random_.randrange(256)
        kind, info = first >> 5, first & 31
        written.append(first)
        count = info
        if 24 <= info < 28:
            size = 1 << info - 24
            count = random_.choice([0, 1, 23, 24, 255, 256, 1000, 2**31, 2**64 - 1]) % 256**size
            written += count.to_bytes(size, "big") if kind != 7 else random_.randbytes(size)
        if kind in (2, 3) and count < longest:
            written += random_.choice([random_.randbytes(count), b"a" * count])
        if random_.random() < 0.1:
            written += bytes(written[-random_.randrange(1, 40) :]) * random_.choice([2, 50, 1000])
    if random_.random() < 0.3:
        del written[random_.randrange(len(written) + 1) :]
    return bytes(written[:1_000_000])


@given(seed=st.integers(0, 2**32), longest=st.sampled_from([10, 100, 10_000, 1_000_000]), in_list=st.booleans())
def test_nothing_but_a_decode_error_is_raised_and_in_time(seed: int, longest: int, in_list: bool) -> None:
    encoded = grammar_aware(random.Random(seed), longest)
    assert decoded_in_time(listed(encoded, b"\x00") if in_list else encoded)


@given(encoded=st.binary(max_size=300))
@example(b"")
def test_garbage_raises_nothing_but_a_decode_error(encoded: bytes) -> None:
    with suppress(DecodeError):
        decode(encoded)


@given(value=VALUES, at=st.integers(0, 10**6), byte=st.integers(0, 255))
def test_what_is_decoded_of_damaged_items_is_of_the_kinds_that_we_use(value: object, at: int, byte: int) -> None:
    encoded = bytearray(cbor2.dumps(value))
    encoded[at % len(encoded)] = byte
    with suppress(DecodeError):
        assert_used(decode(bytes(encoded)))


def assert_used(value: object) -> None:
    assert value is None or type(value) in {bool, int, float, str, bytes, list, dict}
    if isinstance(value, dict):
        assert {type(key) for key in value} <= {str, bytes}
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            assert_used(inner)


# Around it


@pytest.mark.parametrize("encoded", [EMPTY_LISTS + bytes(10_000), b"\x9a" + bytes(20_000)])
def test_garbage_is_not_collected_while_much_is_decoded_and_it_is_afterwards(encoded: bytes) -> None:
    collected: list[int] = []

    def note(phase: str, details: dict[str, int]) -> None:
        collected.append(details["generation"])

    gc.callbacks.append(note)
    try:
        with suppress(DecodeError):
            decode(encoded)
    finally:
        gc.callbacks.remove(note)
    assert len(collected) <= 2 * 3, "each generation once at most, when it is over"
    assert gc.isenabled()


@pytest.mark.parametrize(("count", "fits"), [(98, True), (99, True), (100, False), (5000, False)])
@pytest.mark.parametrize("unit", [b"\x00", b"\x61a", b"\x59\x01\x00" + bytes(256)])
def test_fewer_items_can_be_all_that_is_allowed(count: int, fits: bool, unit: bytes) -> None:
    encoded = listed(*[unit] * count)
    if fits:
        assert decode(encoded, max_items=100) == decode(encoded)
    else:
        with pytest.raises(DecodeError, match="more than 100 items"):
            decode(encoded, max_items=100)


@given(value=VALUES)
def test_it_is_told_how_many_items_there_are_at_most(value: object) -> None:
    def items(part: object) -> int:
        if isinstance(part, dict):
            return 1 + sum(items(key) + items(inner) for key, inner in part.items())
        return 1 + sum(map(items, part)) if isinstance(part, list) else 1

    decoded, most = decode_counted(cbor2.dumps(value))
    assert items(decoded) <= most <= len(cbor2.dumps(value))


def test_long_strings_count_as_one_item_each() -> None:
    assert decode_counted(cbor2.dumps([b"x" * 100_000, "y" * 300]))[1] <= 4


DECODERS = {"load", "loads", "CBORDecoder", "CBORSimpleValue", "decoder", "tag_hook", "object_hook"}
"""What of cbor2 reads. What writes is free."""


def reads_cbor(source: str) -> bool:
    """Whether a module uses any of cbor2's decoders, by whatever name, or may."""
    if "cbor2" not in source:
        return False
    names = {"cbor2"}  # by which the module itself goes here
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=aliases):
                for alias in aliases:
                    if alias.name.startswith("cbor2."):
                        return True
                    if alias.name == "cbor2":
                        names.add(alias.asname or "cbor2")
            case ast.ImportFrom(module=str(module), names=aliases) if module.partition(".")[0] in {"cbor2", "_cbor2"}:
                if module != "cbor2" or any(alias.name in DECODERS | {"*"} for alias in aliases):
                    return True
            case ast.Constant(value="cbor2" | "_cbor2"):  # for `import_module` or `sys.modules`
                return True
    uses = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name) and node.id in names]
    attributes = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in names
    ]
    return len(attributes) < len(uses) or any(node.attr in DECODERS or node.attr.startswith("_") for node in attributes)


def test_no_other_module_decodes_cbor() -> None:
    modules = [path for package in ("overlay", "registry", "aqua_compat") for path in (ROOT / package).rglob("*.py")]
    decoding = [str(path.relative_to(ROOT)) for path in modules if reads_cbor(path.read_text())]
    assert decoding == ["overlay/limits/decoder.py"], "what peers send is decoded by `overlay.limits.decoder.decode`"


@pytest.mark.parametrize(
    "source",
    [
        "import cbor2\ncbor2.loads(b'')",
        "import cbor2 as codec\ncodec.load(file)",
        "import cbor2\ncbor2.CBORDecoder(file)",
        "from cbor2 import loads as read",
        "from cbor2 import *",
        "from cbor2.decoder import CBORDecoder",
        "import cbor2.decoder",
        "from _cbor2 import loads",
        "import cbor2\ncodec = cbor2\ncodec.loads(b'')",
        "import cbor2\ngetattr(cbor2, name)(b'')",
        "import importlib\nimportlib.import_module('cbor2').loads(b'')",
        "import sys\nsys.modules['cbor2']",
        "def f():\n    from cbor2 import load\n    return load",
    ],
)
def test_decoding_by_another_name_is_noticed(source: str) -> None:
    assert reads_cbor(source)


@pytest.mark.parametrize("source", ["import cbor2\ncbor2.dumps(1)", "from cbor2 import dumps", "loads = json.loads"])
def test_encoding_is_free(source: str) -> None:
    assert not reads_cbor(source)
