"""`aqua-registry demo`: shows a network of five node processes at work."""

from __future__ import annotations

import signal
import socket
import tempfile
import time
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aqua_compat.cli.failures import Failure, reasons, root_of
from aqua_compat.cli.logs import configure_logs, logging_options
from aqua_compat.cli.output import describe
from aqua_compat.cli.signals import ENDING, until_signalled

if TYPE_CHECKING:
    from aqua_compat.cli.demo_display import Display
    from aqua_compat.cli.node_process import NodeProcess
    from registry.model.values import Record
    from registry.watch.watch import Watch

# Commands import what they need when they run: `--help` is to answer at once.
# ruff: noqa: PLC0415

NODES = 5
MAJORITY = 3
PATIENCE = 15.0  # seconds that a change may take to be told


@click.command(short_help="See a network of five nodes at work.")
@click.option("--stay", is_flag=True, help="Keep the network running until Ctrl-C, to look at its page.")
@logging_options("error")
def demo(stay: bool, log_level: str, log_format: str) -> None:
    """Start five nodes, and register, resolve, kill and unregister on them.

    Everything runs on this machine, on free ports and in a temporary folder that is removed at the end. The page of
    node 1 shows it in a browser meanwhile.
    """
    import trio

    configure_logs(log_level, log_format)
    with tempfile.TemporaryDirectory(prefix="aqua-registry-demo-") as folder:
        try:
            stopped = trio.run(until_signalled, partial(_show, Path(folder), stay=stay), *ENDING)
        except Exception as error:  # known ones become one line on stderr, others go on
            raise _explained(root_of(error)) from error
    if stopped is not None and not (stay and stopped == signal.SIGINT):
        raise click.Abort


async def _show(folder: Path, *, stay: bool) -> None:
    import trio

    from aqua_compat.cli.demo_display import open_display
    from aqua_compat.cli.node_process import NodeProcess, start_network, stop_network

    nodes = [
        NodeProcess(folder / f"node-{number}", folder / f"node-{number}.log", tied=True)
        for number in range(1, NODES + 1)
    ]
    with open_display(nodes) as display:
        try:
            with display.step(f"Start {NODES} nodes; the others join through the first") as step:
                http = f"127.0.0.1:{_free_port()}"
                await start_network(nodes, of_first=("--http", http))
                step.says(f"look at them while they run: http://{http}/ui/")
            async with AsyncExitStack() as clients:
                await _walk(nodes, display, clients)
                if stay:
                    await trio.sleep_forever()
        finally:
            with display.step("Stop everything"):
                await stop_network(nodes)
        display.ends()


async def _walk(nodes: list[NodeProcess], display: Display, clients: AsyncExitStack) -> None:
    from aqua_compat.api.connections import connect
    from aqua_compat.schema.constants import Constants

    first, second, third, fourth, fifth = nodes
    # Writes that a majority has on disk, so that every reader who asks a majority sees them at once.
    majority = Constants(INITIAL_REPLICATION_FACTOR=MAJORITY)
    with display.step("Connect to node 1 with a new key of ours"):
        owner = await clients.enter_async_context(connect(first.address, constants=majority))
    with display.step("Create the resource 'echo'") as step:
        resource_id, errors = await owner.createResource("echo")
        if resource_id is None:
            raise Failure(f"the resource wasn't created: {reasons(errors)}")
        step.says(f"its id is {resource_id}")
    for number, provider in ((2, second), (3, third)):
        with display.step(f"Register an echo service on node {number}") as step:
            value = f"tcp://10.0.0.{number}:7"
            done, errors = await owner.registerService(resource_id, value, provider.peer_id, "echo")
            _require(done, f"the service on node {number} wasn't registered", errors)
            step.says(f"node {number} signed its record; {MAJORITY} of {NODES} replicas have it on disk")
    with display.step("Resolve through node 4, with a majority's answers") as step:
        step.says(*map(describe, await _resolve(fourth, resource_id)))
    async with connect(fifth.address) as watcher, watcher.watch(resource_id) as events:
        await _until_listed(events, 2)
        with display.step("Kill node 2, which a service runs on, with kill -9, and watch through node 5") as step:
            await second.kill()
            seconds = await _until_listed(events, 1)
            step.says(f"off the list {seconds:.2f} s later; the record stays, and returns with its host")
        with display.step("Start node 2 again") as step:
            await second.start("--bootstrap", first.address)
            step.says(f"on the list again {await _until_listed(events, 2):.2f} s after it was ready")
    with display.step("Unregister the service on node 2; whoever issued a record can end it") as step:
        done, errors = await owner.unregisterService(resource_id, second.peer_id)
        _require(done, "the service wasn't unregistered", errors)
        step.says("a signed tombstone replaces the record")
    with display.step("Resolve through node 4 again") as step:
        step.says(*map(describe, await _resolve(fourth, resource_id)))


async def _until_listed(events: Watch, count: int) -> float:
    """Seconds until so many services are listed."""
    import trio

    began = time.monotonic()
    with trio.move_on_after(PATIENCE) as waiting:
        while len(events.records) != count:
            await anext(events)
    if waiting.cancelled_caught:
        raise Failure(f"{len(events.records)} services are listed after {PATIENCE:g} s, not {count}")
    return time.monotonic() - began


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


async def _resolve(through: NodeProcess, resource_id: str) -> list[Record]:
    from aqua_compat.api.connections import connect

    async with connect(through.address) as reader:
        records, errors = await reader.resolveResource(resource_id, MAJORITY)
    if records is None:
        raise Failure(f"the resource wasn't resolved: {reasons(errors)}")
    return records


def _require(done: bool, otherwise: str, errors: list[str]) -> None:
    if not done:
        raise Failure(f"{otherwise}: {reasons(errors)}")


def _explained(error: BaseException) -> BaseException:
    from aqua_compat.cli.node_process import NodeFailed
    from overlay.errors import OverlayError
    from registry.errors import RegistryError

    if isinstance(error, (NodeFailed, OverlayError, RegistryError, OSError)):
        return Failure(f"the demo failed: {error}")
    return error
