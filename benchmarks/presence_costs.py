"""What presence's single steps take of a peer's CPU: what `tests.simulation.presence` counts them at.

    python -m benchmarks.presence_costs

One peer is this process, the others are another one. A notice costs most where a peer wakes for it alone; where a host
has died many come at once. What waking takes without any notice is subtracted of what sending takes, as the benchmark
wakes to send; reading has its own waking in it. CPU time, so other work on the machine matters little.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Final

import structlog
import trio

from overlay import Identity, OverlayPeer, OverlaySettings, open_peer
from overlay.presence.messages import TOPIC, Message, Said, encode
from overlay.presence.statements import Version, Word, is_genuine, sign

OTHERS: Final = 10
ROUNDS: Final = 40
PAUSE: Final = 0.05  # seconds between two rounds
ALONE: Final = 400  # notices that come alone
CHECKS: Final = 500


def _address(identity: Identity) -> tuple[str, str]:
    """Where to listen, and with whom."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        listen = f"/ip4/127.0.0.1/tcp/{taken.getsockname()[1]}"
    return listen, f"{listen}/p2p/{identity.peer_id}"


def _words(count: int) -> list[Message]:
    """Genuine words about nobody whom anybody knows."""
    witness, accused = Identity.generate(), Identity.generate().peer_id
    return [Said(sign(witness, Word(witness.peer_id, accused, Version(1), True, each, 30))) for each in range(count)]


def _to_each(peer: OverlayPeer, names: Sequence[str], body: bytes) -> None:
    for name in names:
        assert peer._links.notify(name, TOPIC, body), "the link is gone"


async def _be_others(address: str, told: int, asked: int) -> None:
    """Many peers, each of which says a word when told to."""
    async with AsyncExitStack() as stack:
        peers = [
            await stack.enter_async_context(
                open_peer(
                    identity := Identity.generate(),
                    OverlaySettings(listen=(_address(identity)[0],), bootstrap=(address,)),
                )
            )
            for _ in range(OTHERS)
        ]
        to = address.rpartition("/")[2]
        while not all(to in peer.members() for peer in peers):  # noqa: ASYNC110 - asked of the network
            await trio.sleep(0.2)
        body = encode(_words(1))
        os.write(told, b"+")
        while await trio.to_thread.run_sync(os.read, asked, 1) != b"":
            for _ in range(ROUNDS):
                for peer in peers:
                    _to_each(peer, [to], body)
                await trio.sleep(PAUSE)
            os.write(told, b"+")


async def _spent(do: Callable[[], Awaitable[object]]) -> float:
    """Milliseconds of CPU of this process."""
    began = time.process_time()
    await do()
    return (time.process_time() - began) * 1000


async def _measure(listen: str, identity: Identity, told: int, asked: int) -> None:
    async with open_peer(identity, OverlaySettings(listen=(listen,))) as peer:
        await trio.to_thread.run_sync(os.read, told, 1)
        await trio.sleep(5.0)  # what is said on joining is said
        names = [name for name, is_member in peer._links.linked_peers().items() if is_member]
        body, many = encode(_words(1)), encode(_words(100))

        async def nothing() -> None:
            for _ in range(ROUNDS):
                await trio.sleep(PAUSE)

        async def send(body: bytes) -> None:
            for _ in range(ROUNDS):
                _to_each(peer, names, body)
                await trio.sleep(PAUSE)

        async def send_alone(count: int) -> None:
            for number in range(ALONE):
                _to_each(peer, names[number % len(names) :][:count], body)
                await trio.sleep(0.01)

        async def read() -> None:
            os.write(asked, b"+")
            await trio.to_thread.run_sync(os.read, told, 1)

        idle, size = await _spent(nothing), ROUNDS * len(names)
        alone = (await _spent(lambda: send_alone(1)) - await _spent(lambda: send_alone(0))) / ALONE
        one = (await _spent(lambda: send(body)) - idle) / size
        more = ((await _spent(lambda: send(many)) - idle) / size - one) / 99
        read_at_once = (await _spent(read) - idle) / ROUNDS / OTHERS
        print(f"| a notice sent alone, to {len(names)} at once | {alone:.2f}, {one:.2f} ms")
        print(f"| each further message in it | {more:.3f} ms")
        print(f"| a notice read of {OTHERS} at once | {read_at_once:.2f} ms")
        words = _words(CHECKS)
        began = time.process_time()
        assert all(isinstance(each, Said) and is_genuine(each.word) for each in words)
        print(f"| a signature checked | {(time.process_time() - began) / CHECKS * 1000:.3f} ms")


def main() -> None:
    """Print the table."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    identity = Identity.generate()
    listen, address = _address(identity)
    (told, tell), (asked, ask) = os.pipe(), os.pipe()
    others = os.fork()
    if not others:
        os.close(ask)
        trio.run(_be_others, address, tell, asked)
        os._exit(0)
    try:
        trio.run(_measure, listen, identity, told, ask)
    finally:
        os.kill(others, signal.SIGKILL)
        os.waitpid(others, 0)


if __name__ == "__main__":
    main()
