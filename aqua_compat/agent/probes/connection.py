"""Connects to what is checked."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Final, NamedTuple

import trio

from overlay.tasks import in_thread

_NEXT_AFTER: Final = 0.25  # seconds until the next of a name's addresses is tried beside those before it
_LOOKUPS: Final = 8
"""Names that are looked up at the same time: a resolver that hangs takes no thread of the node's."""

SocketAddress = tuple[int, tuple[str, int]]
"""Family, and IP address and port."""


class Tls(NamedTuple):
    """How TLS is spoken: whether it is verified, under which name (by default the host's), by whose word."""

    verify: bool
    server_name: str
    ca: str
    protocols: tuple[str, ...] = ()


@asynccontextmanager
async def connected(host: str, port: int, tls: Tls | None = None) -> AsyncIterator[trio.abc.Stream]:
    """A connection while the context is open. Raises OSError, and trio.BrokenResourceError where TLS fails."""
    stream = await first_to_answer(await _addresses(host, port))
    try:
        if tls is None:
            yield stream
            return
        context = await in_thread(_context, tls)
        secured = trio.SSLStream(stream, context, server_hostname=tls.server_name or host, https_compatible=True)
        await secured.do_handshake()
        yield secured
    finally:
        await trio.aclose_forcefully(stream)  # no farewell: a check that is over holds nothing


def forget_certificates() -> None:
    """Reads files of certificates again for what is checked from now on."""
    _context.cache_clear()


def reason_of(error: Exception) -> str:
    """Why a connection failed, for people."""
    if isinstance(error, trio.BrokenResourceError) and error.__cause__ is not None:
        error = error.__cause__ if isinstance(error.__cause__, Exception) else error
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or error}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.rpartition("): ")[
            2
        ]  # trio puts the address before it, which whoever tells it does better
    return str(error) or type(error).__name__


async def first_to_answer(addresses: Sequence[SocketAddress]) -> trio.SocketStream:
    """A connection to the first address that answers; they are tried in their order, each a bit after the one before
    it, or as soon as that failed (RFC 8305): one that is silent doesn't take the time of the others. Raises OSError."""
    opened: list[trio.SocketStream] = []
    failures: list[OSError] = []

    async def attempt(family: int, address: tuple[str, int], has_failed: trio.Event) -> None:
        connecting = trio.socket.socket(family, socket.SOCK_STREAM)
        try:
            await connecting.connect(address)
        except OSError as error:
            connecting.close()
            failures.append(error)
            has_failed.set()
        except BaseException:
            connecting.close()
            raise
        else:
            opened.append(trio.SocketStream(connecting))
            nursery.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            for family, address in addresses:
                has_failed = trio.Event()
                nursery.start_soon(attempt, family, address, has_failed)
                with trio.move_on_after(_NEXT_AFTER):
                    await has_failed.wait()
    except BaseException:
        _close(opened)
        raise
    if not opened:
        raise failures[-1] if failures else OSError("the name has no address")
    _close(opened[1:])
    return opened[0]


def _close(streams: Sequence[trio.SocketStream]) -> None:
    for stream in streams:
        stream.socket.close()


async def _addresses(host: str, port: int) -> list[SocketAddress]:
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        found = await in_thread(_looked_up, host, port, limiter=_limiter())
        return list(dict.fromkeys(found))
    return [(socket.AF_INET6 if version == 6 else socket.AF_INET, (host, port))]


def _looked_up(host: str, port: int) -> list[SocketAddress]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except ValueError as error:  # a part of 64 characters, say
        raise OSError(f"no host can have this name: {error}") from None
    return [(family, (str(address[0]), port)) for family, _, _, _, address in found]


_LIMITER: Final = trio.lowlevel.RunVar[trio.CapacityLimiter | None]("lookups of checks", None)


def _limiter() -> trio.CapacityLimiter:
    limiter = _LIMITER.get()
    if limiter is None:
        limiter = trio.CapacityLimiter(_LOOKUPS)
        _LIMITER.set(limiter)
    return limiter


@lru_cache(maxsize=64)
def _context(tls: Tls) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=tls.ca or None)
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.protocols:
        context.set_alpn_protocols(list(tls.protocols))
    return context
