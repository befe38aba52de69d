"""Where HTTP comes in: the socket in the data folder, and an address."""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

import trio

from aqua_compat.settings import HttpSettings
from registry.errors import StorageError

SOCKET: Final = "http.sock"
_BACKLOG: Final = 128
_LONGEST_NAME: Final = 100  # bytes of a socket's path that every platform takes
_PEER: Final = struct.Struct("3i")  # pid, uid, gid


class Misconfigured(Exception):
    """Settings with which HTTP can't be served, or shouldn't be. The text names the setting and the remedy."""


class Address(NamedTuple):
    """Where to listen."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return ipaddress.ip_address(self.host).is_loopback

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def address_in(text: str, setting: str = "http.listen", example: str = "127.0.0.1:8500") -> Address:
    """The address of a setting, such as `HttpSettings.listen`. Raises Misconfigured."""
    host, _, port = text.rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host.removeprefix("[").removesuffix("]")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise Misconfigured(f"{setting} is {text!r}, not an address and a port, such as {example}") from None
    if not (port.isascii() and port.isdigit() and int(port[:6]) <= 65_535):
        raise Misconfigured(f"{setting} is {text!r}: its port must be a number up to 65535")
    return Address(host, int(port))


def check_exposure(settings: HttpSettings, address: Address, *, has_tokens: bool) -> None:
    """Raises Misconfigured where other machines would reach what isn't protected."""
    if address.is_loopback:
        return
    if not has_tokens:
        raise Misconfigured(
            f"http.listen is {address}, which other machines reach, and this node has no tokens; make one first:"
            " aqua-registry http token create NAME --read"
        )
    if not settings.tls_certificate and not settings.plain:
        raise Misconfigured(
            f"http.listen is {address}, which other machines reach; give http.tls_certificate and http.tls_key, or set"
            " http.plain where whatever is in front of it ends TLS"
        )


def tls_context(settings: HttpSettings) -> ssl.SSLContext | None:
    """How connections to `listen` are encrypted; None where they aren't. Raises Misconfigured."""
    if not settings.tls_certificate:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key or None)
    except (OSError, ssl.SSLError) as error:
        raise Misconfigured(f"http.tls_certificate {settings.tls_certificate} can't be used: {error}") from None
    context.set_alpn_protocols(["http/1.1"])
    return context


async def listen_on(address: Address) -> trio.SocketListener:
    """Listens on an address. Raises Misconfigured."""
    try:
        [listener] = await trio.open_tcp_listeners(address.port, host=address.host, backlog=_BACKLOG)
    except OSError as error:
        reason = error.strerror or str(error)
        raise Misconfigured(f"can't listen on http.listen {address}: {reason}; choose another port") from None
    return listener


@contextmanager
def socket_in(data_dir: Path) -> Iterator[trio.SocketListener]:
    """Listens on the socket in a data folder that this process has claimed; the file is gone after the block.

    Raises StorageError.
    """
    path = data_dir / SOCKET
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)  # of a process that was killed: the folder is ours
        os.fchmod(opened.fileno(), 0o600)  # before it has a name, so that on Linux it never has another mode
        with short_name(path) as name:
            opened.bind(name)
        path.chmod(0o600)
        opened.listen(_BACKLOG)
        opened.setblocking(False)
    except OSError as error:
        opened.close()
        raise StorageError(f"can't listen on {path}: {error.strerror or error}") from error
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(opened))
    try:
        yield listener
    finally:
        listener.socket.close()
        with suppress(OSError):
            path.unlink(missing_ok=True)


@contextmanager
def short_name(path: Path) -> Iterator[str]:
    """A name of a socket that a socket's address has room for: on Linux, where its own is too long, another one."""
    if len(os.fsencode(path)) <= _LONGEST_NAME:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def is_own_user(stream: trio.SocketStream) -> bool:
    """Whether who connected to the socket is this process's user, or root. Where the kernel doesn't tell, the socket's
    mode decides alone."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    _, uid, _ = _PEER.unpack(stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return uid in (os.geteuid(), 0)
