"""A whole node over the simulated internet, and strangers who say to it whatever they like, byte by byte.

Overlay, registry, services and storage are the real ones; what is below streams is simulated, so that nothing but the
node itself takes time. A stranger costs next to nothing: it sends what was made before, and drops what it hears.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec
import trio

from aqua_compat.api.services import Services
from overlay.identity import Identity
from overlay.limits.loop_lag import LoopLag
from overlay.peer import OverlayPeer
from overlay.rpc import protocol
from overlay.rpc.framing import FrameDecoder
from overlay.rpc.protocol import Cancel, Failed, Frame, Hello, Ping, Pong, Refused, Request, Response
from overlay.rpc.transport import ByteStream
from overlay.settings import CallLimits, OverlaySettings
from overlay.tasks import background
from registry.assembly import Parts, assembled
from registry.client.node_status import NodeStatus
from registry.settings import NodeSettings
from registry.storage import Store, open_store
from tests.simulation.host import Stream, open_host
from tests.simulation.peers import PeerNetwork
from tests.unit.registry.builders import identity

NODE: Final = identity(70_000)
SETTINGS: Final = OverlaySettings(listen=())
_LONGEST: Final = CallLimits().max_frame


class Nearby(PeerNetwork):
    """An internet on which nothing takes time."""

    def takes(self, one: str, other: str) -> float:
        return 0.0


class Victim:
    """The node, its parts, and how late its loop is in CPU time, which other processes don't take part in."""

    def __init__(self, internet: Nearby, peer: OverlayPeer, parts: Parts, store: Store) -> None:
        self.internet = internet
        self.peer = peer
        self.parts = parts
        self.store = store

    @asynccontextmanager
    async def stranger(
        self,
        number: int = 0,
        *,
        member: bool = False,
        answer: Callable[[Request], bytes] | None = None,
    ) -> AsyncIterator[Stranger]:
        """A peer that has a link to the node. `answer`: what it answers a request of the node's, encoded."""
        who = identity(71_000 + number)
        async with open_host(self.internet, who.peer_id, SETTINGS) as host, background() as nursery:
            host.add_addresses(self.peer.peer_id, self.peer.addresses())
            arrived: list[Stream] = []
            came = trio.Event()

            async def accept(_: str, stream: Stream) -> None:
                arrived.append(stream)
                came.set()
                await trio.sleep_forever()

            host.set_stream_handler(SETTINGS.protocol_id, accept)  # type: ignore[arg-type]
            stream = await host.open_stream(self.peer.peer_id, SETTINGS.protocol_id)
            stranger = Stranger(who, stream, answer)
            nursery.start_soon(stranger.listen)
            await stranger.say(Hello(0, member, random.randbytes(8)))
            await stranger.greeted.wait()
            yield stranger


class Stranger:
    """One who sends frames as they are."""

    def __init__(self, who: Identity, stream: ByteStream, answer: Callable[[Request], bytes] | None) -> None:
        self.identity = who
        self.greeted = trio.Event()
        self.ended = False
        self.asked: list[Request] = []
        """Requests of the node's."""
        self._stream = stream
        self._answer = answer
        self._next = 0
        self._waiting: dict[int, tuple[trio.Event, list[Response | Refused | Failed]]] = {}

    @property
    def peer_id(self) -> str:
        return self.identity.peer_id

    async def say(self, *frames: Frame) -> None:
        await self.send(b"".join(map(protocol.encode, frames)))

    async def send(self, encoded: bytes) -> None:
        """Bytes, as they are."""
        await self._stream.write(encoded)

    async def call(self, method: str, body: bytes, timeout: float = 60.0) -> Response | Refused | Failed | None:
        """What comes of a request with an encoded body; None when the link ended."""
        number, self._next = self._next, self._next + 1
        done, answers = self._waiting[number] = trio.Event(), []
        try:
            await self.say(Request(number, method, body, int(timeout * 1000)))
            await done.wait()
        except BaseException:
            with trio.CancelScope(shield=True):
                if not self.ended:
                    await self.say(Cancel(number))
            raise
        finally:
            self._waiting.pop(number, None)
        return answers[0] if answers else None

    async def listen(self) -> None:
        """Take what comes; until the link ends."""
        decoder = FrameDecoder(4 * _LONGEST)
        while chunk := await self._read():
            for item in decoder.feed(chunk):
                frame = protocol.parse(item)
                match frame:
                    case Hello():
                        self.greeted.set()
                    case Ping():
                        await self.say(Pong())
                    case Request():
                        self.asked.append(frame)
                        if self._answer is not None:
                            await self.say(Response(frame.id, self._answer(frame)))
                    case Response() | Refused() | Failed() if frame.id in self._waiting:
                        done, answers = self._waiting[frame.id]
                        answers.append(frame)
                        done.set()
        self.ended = True
        for done, _ in list(self._waiting.values()):
            done.set()

    async def _read(self) -> bytes:
        try:
            return await self._stream.read_some(4096)
        except Exception:  # it broke
            return b""


async def _status() -> NodeStatus:
    raise NotImplementedError("nothing here asks for it")


@asynccontextmanager
async def victim(
    folder: Path | None, settings: NodeSettings | None = None, clock: Callable[[], float] = time.time
) -> AsyncIterator[Victim]:
    """A node that has no other; its database in `folder`, or in memory and in the loop's own thread."""
    settings = settings or NodeSettings()
    internet = Nearby(random.Random(0), msgspec.structs.replace(settings.overlay, listen=()), ())
    path = Path(":memory:") if folder is None else folder / "registry.sqlite"
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(background())
        nursery.start_soon(internet.run)
        store = await stack.enter_async_context(open_store(path, inline=folder is None))
        peer = await stack.enter_async_context(internet.joined(NODE, clock, random.Random(1)))
        parts = await stack.enter_async_context(
            assembled(
                peer,
                NODE,
                store,
                settings,
                _status,
                clock,
                starts_network=True,
                presence=peer.presence,
                randomness=random.Random(2),
            )
        )
        Services(peer, parts.registry)
        yield Victim(internet, peer, parts, store)


def lag_in_cpu_time() -> LoopLag:
    """As the node's own meter, in the thread's CPU time: another process that has the machine doesn't count."""
    return LoopLag(time.thread_time)
