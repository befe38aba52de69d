"""Each attack of the corpus on a running node: it lives on, and serves honest clients meanwhile and afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import pytest
import trio

from aqua_compat.cli.node_process import NodeProcess
from benchmarks.processes import open_files, resident_megabytes
from tests.attacks.corpus import ATTACKS, sustained
from tests.attacks.corpus.target import Target
from tests.attacks.corpus.wire import HELLO, open_wire
from tests.attacks.honest import HonestClients, honest_clients
from tests.end_to_end.forked import fork_server
from tests.end_to_end.network import eventually

LASTS: Final = 0.5  # seconds, and until the attack has done something
KIB: Final = 1024


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """A network of one node, in a process of its own."""
    folder = tmp_path_factory.mktemp("attacked")
    process = NodeProcess(folder / "node", folder / "log", fork_server().open_process)
    trio.run(process.start)
    yield process
    trio.run(process.stop)
    assert "Traceback" not in (folder / "log").read_text()


@asynccontextmanager
async def attacked(node: NodeProcess, name: str) -> AsyncIterator[Target]:
    """The attack goes on until the block ends."""
    target = Target(node.address, seed=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sustained, ATTACKS[name], target)
        yield target
        nursery.cancel_scope.cancel()


async def check_served(clients: HonestClients) -> None:
    with trio.fail_after(20):
        await clients.round()
    assert clients.take().failed == 0


@pytest.mark.parametrize("attack", ATTACKS)
async def test_honest_clients_are_served_under_attack_and_afterwards(node: NodeProcess, attack: str) -> None:
    async with honest_clients(node.address, 2) as clients:
        async with attacked(node, attack) as target:
            await trio.sleep(LASTS)  # how long an attack lasts is nobody's to tell
            await check_served(clients)

            async def done() -> int:
                await trio.lowlevel.checkpoint()
                return sum(count for what, count in target.done.items() if not what.startswith("ended"))

            await eventually(done, lambda count: count > 0, timeout=20)
        await check_served(clients)
        assert node.alive


@pytest.mark.slow
async def test_many_identities_that_begin_frames_take_less_than_a_hundred_mebibytes_together(tmp_path: Path) -> None:
    process = NodeProcess(tmp_path / "node", tmp_path / "log", fork_server().open_process)
    await process.start()
    try:
        await _begin_frames(process)
    finally:
        await process.stop()


async def _begin_frames(node: NodeProcess) -> None:
    """255 identities with four streams each, on which 200 KiB of a frame came, which is 200 MiB."""
    assert node.process_id is not None
    target = Target(node.address)
    places = trio.Semaphore(8)
    left = 255
    begun = trio.Event()

    async def begin() -> None:
        nonlocal left
        with suppress(Exception):  # however it notices that its connection was ended, as many are
            async with AsyncExitStack() as stack:
                try:
                    async with places:
                        wire = await stack.enter_async_context(open_wire(target))
                        for _ in range(4):
                            stream = await wire.open(first=HELLO)
                            await wire.send(stream, (1024 * KIB).to_bytes(4, "big") + bytes(200 * KIB))
                finally:
                    left -= 1
                    if not left:
                        begun.set()
                await trio.sleep_forever()

    async with honest_clients(node.address, 2) as clients, trio.open_nursery() as nursery:
        before, files = resident_megabytes(node.process_id), open_files(node.process_id)

        for _ in range(left):
            nursery.start_soon(begin)
        with trio.fail_after(120):
            await begun.wait()
        grown = resident_megabytes(node.process_id) - before
        assert 20 < grown < 100
        await check_served(clients)
        nursery.cancel_scope.cancel()

    async def files_now() -> int:
        await trio.lowlevel.checkpoint()
        assert node.process_id is not None
        return open_files(node.process_id)

    await eventually(files_now, lambda count: count <= files, timeout=30)
