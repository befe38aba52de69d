"""Fault: a negotiation reads as much as the other side declares, before anybody knows who that is.

`MultiselectCommunicator.read` takes any length of 64 bits, and asks the connection for so many bytes at once: sockets
allocate those first, 3.8 TB as soon as 4 GB. What then comes is kept until all of it is there: a stranger who declares
a gigabyte and sends as fast as he can had a node hold a hundred reads of it. And what is no UTF-8 is an error that no
caller expects.

Remove when libp2p bounds what it reads there.
"""

from __future__ import annotations

from typing import Final

from libp2p.exceptions import ParseError
from libp2p.io.exceptions import IOException, MessageTooLarge
from libp2p.protocol_muxer.exceptions import MultiselectCommunicatorError
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.utils.varint import read_varint_prefixed_bytes_limited

LONGEST: Final = 1024
"""Bytes of one message, its newline counted; js-libp2p takes as many."""


def bound_negotiations() -> None:
    """Have all negotiations of this process, of connections and of streams, refuse longer messages unread."""
    MultiselectCommunicator.read = _read  # type: ignore[method-assign]


async def _read(self: MultiselectCommunicator) -> str:
    """The next message without its newline. Raises `MultiselectCommunicatorError`."""
    try:
        message = await read_varint_prefixed_bytes_limited(self.read_writer, LONGEST)
        text = message.decode()
    except (ParseError, IOException, MessageTooLarge, UnicodeDecodeError) as error:
        raise MultiselectCommunicatorError(f"no message of a negotiation: {str(error)[:100]}") from error
    if not text.endswith("\n"):
        raise MultiselectCommunicatorError("a message of a negotiation without an end")
    return text[:-1]
