"""docs/wire-protocol.md says what the code does: its vectors, kinds, codes and limits."""

from __future__ import annotations

import re

import pytest

from overlay.discovery import lookup
from overlay.rpc.framing import FrameDecoder, encode_item
from overlay.rpc.protocol import (
    Bye,
    Cancel,
    Failed,
    Fault,
    Frame,
    Hello,
    Keep,
    Notice,
    Ping,
    Pong,
    Reason,
    Referral,
    Refused,
    Request,
    Response,
    Stay,
    encode,
    parse,
)
from overlay.settings import CallLimits, OverlaySettings
from tests.paths import ROOT

DOCUMENT = (ROOT / "docs/wire-protocol.md").read_text()
VECTORS = dict(re.findall(r"^\| ([\w, ]+) \| `[^`]+` \| `([0-9a-f ]+)` \|$", DOCUMENT, flags=re.MULTILINE))
OTHER = Referral("12D3KooWQoz9NdibMyvtPoxPqy9sWVs1pTUDzuANpcfQKtFhCEfK", ("/ip4/192.0.2.7/tcp/7001",))
FRAMES: dict[str, Frame] = {
    "hello of a member": Hello(0, True, bytes(range(8)), version="aqua-registry/0.1.0"),
    "hello of a light client": Hello(0, False, bytes(range(8))),
    "request": Request(0, "overlay/addresses", encode_item(None), 6000),
    "response": Response(0, encode_item(["/ip4/192.0.2.7/tcp/7001"])),
    "refused": Refused(1, "malformed", "not a peer id"),
    "cancel": Cancel(2),
    "ping": Ping(),
    "pong": Pong(8),
    "bye, idle": Bye(Reason.IDLE),
    "bye, full": Bye(Reason.FULL, (OTHER,)),
    "failed": Failed(3, Fault.NO_SUCH_METHOD),
    "keep, free": Keep(False),
    "stay": Stay(),
    "notice": Notice("presence", encode_item([[0, [1700000000000, 3]]])),
}


def test_document_has_these_vectors() -> None:
    assert VECTORS.keys() == FRAMES.keys()


@pytest.mark.parametrize("name", FRAMES)
def test_vector_is_what_we_send_and_understand(name: str) -> None:
    written = bytes.fromhex(VECTORS[name])
    assert encode(FRAMES[name]).hex() == written.hex()
    [item] = FrameDecoder(CallLimits().max_frame).feed(written)
    assert parse(item) == FRAMES[name]


@pytest.mark.parametrize("codes", [Fault, Reason])
def test_document_tells_every_code(codes: type[Fault | Reason]) -> None:
    for code in codes:
        assert re.search(rf"^\| {code.value} \| {code.name.lower().replace('_', ' ')} \|", DOCUMENT, flags=re.MULTILINE)


def test_document_tells_ids_and_limits() -> None:
    settings = OverlaySettings()
    for told in (settings.protocol_id, settings.kad_protocol_id, f"{settings.calls.max_frame:,} bytes"):
        assert told in DOCUMENT


def test_document_tells_every_method_of_the_overlay() -> None:
    """Those that are in the code as texts; the document tells none that isn't."""
    sources = [path.read_text() for path in (ROOT / "overlay").rglob("*.py")]
    served = {name for source in sources for name in re.findall(r'"(overlay/[a-z-]+)"', source)}
    assert served == set(re.findall(r"^\| `(overlay/[a-z-]+)` \|", DOCUMENT, flags=re.MULTILINE))
    assert lookup.__doc__, "the rules of lookups are told there"
