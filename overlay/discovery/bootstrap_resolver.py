"""From what an operator gave to join through (`bootstrap_source`) to addresses of peers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import chain
from typing import Final, Protocol

import structlog
import trio

from overlay.discovery.address_book import parse_peer_address
from overlay.discovery.bootstrap_pins import BootstrapPins
from overlay.discovery.bootstrap_source import (
    MOST_ADDRESSES,
    BootstrapSource,
    SourceKind,
    addresses_in,
    parse_source,
)
from overlay.errors import AddressError, BootstrapFailed, OverlayError

_LARGEST_FILE: Final = 64 * 1024  # bytes
_LINES_AT_ONCE: Final = 16
"""Lines of a file that are looked at together: one where somebody is silent takes none of the others' time."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

TextLookup = Callable[[str], Awaitable[list[str]]]
"""The multiaddrs that a name's dnsaddr records tell, without those that are none. Raises OverlayError."""


class Answering(Protocol):
    """What is needed of the host."""

    async def who_is_at(self, multiaddr: str, *, timeout: float) -> list[str]:
        """The addresses, each with the id of the peer that answers there, that one without an id stands for."""
        ...


class BootstrapResolver:
    """Finds the addresses that one peer's bootstrap sources stand for."""

    def __init__(
        self,
        own_id: str,
        host: Answering,
        look_up: TextLookup,
        pins: BootstrapPins,
        *,
        pins_first: bool,
        timeout: float,
    ) -> None:
        """`pins_first`: whether who answers first at an address without an id is pinned to it; otherwise it is whoever
        answers, as where certificates decide. `timeout`: seconds for who is at an address."""
        self._own_id = own_id
        self._host = host
        self._look_up = look_up
        self._pins = pins
        self._pins_first = pins_first
        self._timeout = timeout

    async def addresses(self, source: BootstrapSource) -> list[str]:
        """The addresses of peers, each with an id. Raises OverlayError, which says why there are none."""
        match source.kind:
            case SourceKind.PEER:
                return [f"{source.where}/p2p/{source.peer_id}"]
            case SourceKind.PLACE:
                return await self._at(source)
            case SourceKind.DNSADDR:
                found = await self._look_up(source.where)
                named = [address for address in found if source.peer_id in ("", parse_peer_address(address)[1])]
                if not named:
                    raise BootstrapFailed(f"{source.text} tells no address of a peer")
                return named[:MOST_ADDRESSES]
            case SourceKind.FILE:
                return await self._in_file(source.where)

    async def _in_file(self, path: str) -> list[str]:
        try:
            text = (await trio.Path(path).read_bytes())[:_LARGEST_FILE].decode()
        except (OSError, UnicodeDecodeError) as error:
            raise AddressError(f"can't read the file of addresses {path}: {error}") from error
        lines = addresses_in(text)
        found: list[list[str]] = [[] for _ in lines]
        failures: list[OverlayError] = []
        limiter = trio.CapacityLimiter(_LINES_AT_ONCE)

        async def look(line: str, into: list[str]) -> None:
            try:
                source = parse_source(line)
                if source.kind is SourceKind.FILE:
                    raise AddressError(f"a file of addresses names no other: {line!r}")
                async with limiter:
                    into += await self.addresses(source)
            except OverlayError as error:
                failures.append(error)
                log.info("an address of a file is of no use", file=path, address=line[:200], error=str(error))

        async with trio.open_nursery() as nursery:
            for line, into in zip(lines, found, strict=True):
                nursery.start_soon(look, line, into)
        addresses = list(chain(*found))
        if not addresses:
            raise failures[-1] if failures else AddressError(f"the file of addresses {path} has none")
        return addresses[:MOST_ADDRESSES]

    async def _at(self, source: BootstrapSource) -> list[str]:
        answering = await self._host.who_is_at(source.where, timeout=self._timeout)
        if not answering:
            raise BootstrapFailed(f"nobody answers at {source.text}")
        if not self._pins_first:
            return answering
        others = dict.fromkeys(parse_peer_address(address)[1] for address in answering)
        others.pop(self._own_id, None)
        pinned = self._pins.of(source.text)
        if not pinned and others:
            self._pins.pin(source.text, pinned := tuple(others))
        good = [address for address in answering if parse_peer_address(address)[1] in (*pinned, self._own_id)]
        if not good:
            raise BootstrapFailed(
                f"other peers answer at {source.text} than did first: {', '.join(others)}; if that is right, take"
                f" {source.text!r} out of {self._pins.path}"
            )
        return good
