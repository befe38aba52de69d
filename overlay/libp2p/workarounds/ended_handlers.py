"""Fault: what handled an inbound connection stays for as long as the host runs, however soon the connection ended.

`Swarm._do_handle_inbound_connection` waits for the swarm's end once a connection is set up, and the listener closes the
socket when that returns. So each connection that ever came leaves a task with all that it holds, about 6 kB, and its
slot of the limit on inbound connections (see `connection_limits`).

Remedy: the handler runs in a cancel scope, which is told when the connection has ended. It has some time then to do
what it may be about to, such as registering a connection that lasted for a moment only.

Remove when an inbound connection's handler returns at the connection's end.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING

import trio
from libp2p.transport.manager import TransportManager

if TYPE_CHECKING:
    from libp2p.abc import IListener
    from libp2p.custom_types import THandler
    from libp2p.io.abc import ReadWriteCloser
    from libp2p.network.swarm import Swarm
    from multiaddr import Multiaddr  # type: ignore[import-untyped]

_handler: ContextVar[trio.CancelScope] = ContextVar("what handles the inbound connection that is being set up")


class _EndingHandlers(TransportManager):
    """The transports of another one, whose listeners' handlers can be ended."""

    def __init__(self, before: TransportManager) -> None:
        super().__init__(port_demuxers=before._port_demuxers)
        self.add_transports(before.get_transports())

    def add_listen_addr(self, maddr: Multiaddr, conn_handler: THandler) -> IListener | None:
        async def handle(stream: ReadWriteCloser) -> None:
            with trio.CancelScope() as scope:
                _handler.set(scope)  # in this connection's own task
                await conn_handler(stream)

        return super().add_listen_addr(maddr, handle)


def end_handlers(swarm: Swarm) -> None:
    """Have listeners' handlers be such that can be ended. To be called before the swarm listens."""
    swarm.transport_manager = _EndingHandlers(swarm.transport_manager)


def end_of_handler(grace: float) -> Callable[[], None]:
    """What is to be called when the inbound connection that this task sets up is closed: its handler ends after `grace`
    seconds at the latest."""
    scope = _handler.get(None)

    def end() -> None:
        if scope is not None:
            scope.deadline = min(scope.deadline, trio.current_time() + grace)

    return end
