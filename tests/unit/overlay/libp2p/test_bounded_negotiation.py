"""What a peer says in a negotiation is bounded before it is read."""

from __future__ import annotations

import pytest
from libp2p.protocol_muxer.exceptions import MultiselectCommunicatorError

from overlay.libp2p.workarounds.bounded_negotiation import LONGEST, BoundedCommunicator


class Peer:
    """Says `said`, and notes how much it was asked for at once."""

    def __init__(self, said: bytes) -> None:
        self.said = said
        self.asked = 0

    async def read(self, n: int | None = None) -> bytes:
        assert n is not None
        self.asked = max(self.asked, n)
        data, self.said = self.said[:n], self.said[n:]
        return data

    async def write(self, data: bytes) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError

    def get_remote_address(self) -> tuple[str, int] | None:
        return None


@pytest.mark.parametrize(
    "said",
    [
        b"\xff\xff\xff\xff\xff\x6e" + bytes(10_000),  # 3.8 TB
        b"\x81\x08" + b"a" * LONGEST + b"\n",
        b"\x80" * 20,
        b"\x00",
        b"\x05abcd",
        b"\x04\xff\xfea\n",
        b"",
    ],
)
async def test_what_is_no_message_of_a_negotiation_is_refused_before_more_is_read(said: bytes) -> None:
    peer = Peer(said)
    with pytest.raises(MultiselectCommunicatorError):
        await BoundedCommunicator(peer).read()
    assert peer.asked <= LONGEST


@pytest.mark.parametrize("name", ["/noise", "/a/" + "b" * (LONGEST - 4), ""])
async def test_messages_of_a_negotiation_are_read_as_they_are(name: str) -> None:
    message = f"{name}\n".encode()
    prefix = bytes([len(message)]) if len(message) < 128 else bytes([len(message) & 127 | 128, len(message) >> 7])
    peer = Peer(prefix + message + b"more")
    assert await BoundedCommunicator(peer).read() == name
    assert peer.said == b"more"
