"""Fault: a negotiation reads as much as the other side declares, before anybody knows who that is.

`MultiselectCommunicator.read` takes any length of 64 bits, and asks the connection for so many bytes at once: sockets
allocate those first, 3.8 TB as soon as 4 GB. What then comes is kept until all of it is there: a stranger who declares
a gigabyte and sends as fast as he can had a node hold a hundred reads of it. And what is no UTF-8 is an error that no
caller expects.

So both sides of a negotiation are ours: of streams (`bound_streams`), of security and of the muxer (`bound_selector`).

Remove when libp2p bounds what it reads there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from libp2p.abc import IHost, IMultiselectCommunicator
from libp2p.custom_types import StreamHandlerFn, TProtocol
from libp2p.exceptions import ParseError
from libp2p.host.basic_host import BasicHost
from libp2p.io.exceptions import IOException, MessageTooLarge
from libp2p.protocol_muxer.exceptions import MultiselectCommunicatorError
from libp2p.protocol_muxer.generic_selector import GenericMultistreamSelector
from libp2p.protocol_muxer.multiselect import DEFAULT_NEGOTIATE_TIMEOUT, Multiselect
from libp2p.protocol_muxer.multiselect_client import MultiselectClient
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.utils.varint import read_varint_prefixed_bytes_limited

LONGEST: Final = 1024
"""Bytes of one message, its newline counted; js-libp2p takes as many."""


class BoundedCommunicator(MultiselectCommunicator):
    """Reads messages of `LONGEST` bytes at most."""

    async def read(self) -> str:
        """The next message without its newline. Raises `MultiselectCommunicatorError`."""
        try:
            message = await read_varint_prefixed_bytes_limited(self.read_writer, LONGEST)
            text = message.decode()
        except (ParseError, IOException, MessageTooLarge, UnicodeDecodeError) as error:
            raise MultiselectCommunicatorError(f"no message of a negotiation: {str(error)[:100]}") from error
        if not text.endswith("\n"):
            raise MultiselectCommunicatorError("a message of a negotiation without an end")
        return text[:-1]


def _bounded(communicator: IMultiselectCommunicator) -> IMultiselectCommunicator:
    if isinstance(communicator, MultiselectCommunicator):
        return BoundedCommunicator(communicator.read_writer)
    return communicator


class BoundedServer(Multiselect):
    """Answers negotiations."""

    async def negotiate(
        self, communicator: IMultiselectCommunicator, negotiate_timeout: int = DEFAULT_NEGOTIATE_TIMEOUT
    ) -> tuple[TProtocol | None, StreamHandlerFn | None]:
        """As in libp2p, with bounded messages."""
        return await super().negotiate(_bounded(communicator), negotiate_timeout)


class BoundedClient(MultiselectClient):
    """Begins negotiations."""

    async def select_one_of(
        self,
        protocols: Sequence[TProtocol],
        communicator: IMultiselectCommunicator,
        negotiate_timeout: int = DEFAULT_NEGOTIATE_TIMEOUT,
    ) -> TProtocol:
        """As in libp2p, with bounded messages."""
        return await super().select_one_of(protocols, _bounded(communicator), negotiate_timeout)

    async def query_multistream_command(
        self,
        communicator: IMultiselectCommunicator,
        command: str,
        response_timeout: int = DEFAULT_NEGOTIATE_TIMEOUT,
    ) -> list[str]:
        """As in libp2p, with bounded messages."""
        return await super().query_multistream_command(_bounded(communicator), command, response_timeout)


def bound_selector(selector: GenericMultistreamSelector[Any]) -> None:
    """Bound the negotiations of a connection's security, or of its muxer."""
    selector.multiselect = BoundedServer(selector.multiselect.handlers)
    selector.multiselect_client = BoundedClient()


def bound_streams(host: IHost) -> None:
    """Bound the negotiations of a host's streams. To be called before it listens or dials."""
    assert isinstance(host, BasicHost)
    host.multiselect = BoundedServer(host.multiselect.handlers)
    host.multiselect_client = BoundedClient()
