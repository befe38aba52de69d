"""Fault: any exception in any stream handler ends the whole host, and so do bad bytes in a protocol name.

`SwarmConn._handle_muxed_stream` lets exceptions out into the swarm's nursery, and `MultiselectCommunicator.read`
decodes the remote's bytes as UTF-8 without catching. So one peer's stream could end the process.

Remove when libp2p catches exceptions per stream.
"""

from __future__ import annotations

import structlog
import trio
from libp2p.abc import INetStream
from libp2p.network.stream.exceptions import StreamError
from libp2p.network.swarm import Swarm

from overlay.errors import StreamBroken

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def guard_streams(swarm: Swarm) -> None:
    """Make a stream whose handling fails be reset and logged, and nothing else.

    Wraps what is installed already, so it comes after everything that installs a swarm stream handler.
    """
    unguarded = swarm.common_stream_handler

    async def guarded(stream: INetStream) -> None:
        try:
            await unguarded(stream)
        except Exception as error:  # whatever a handler raises is the fault under remedy
            # That its peer reset the stream, or its connection ended, is nothing to tell anybody.
            tell = log.debug if isinstance(error, StreamBroken | StreamError) else log.info
            tell(
                "a stream ended with an error",
                peer_id=str(stream.muxed_conn.peer_id),
                protocol=stream.get_protocol(),
                error=repr(error)[:200],
            )
            with trio.move_on_after(1):
                await _reset(stream)

    swarm.set_stream_handler(guarded)


async def _reset(stream: INetStream) -> None:
    try:
        await stream.reset()
    except Exception as error:  # a stream that can't be reset is gone
        log.debug("a stream could not be reset", error=repr(error)[:200])
