"""Unmodified Aqua from the original's JS client, over node processes.

    python -m benchmarks.aqua [--nodes 6 32]

One JS client, its relay, and the other nodes; all share this machine's cores, the client too, so that many calls in
flight wait for each other. The reference is the same function called natively by a light client of the same network in
the same run. `aim` tells what a figure was meant to be.

Below the times of an operation stand the calls, bytes and CPU of all nodes for each, with what it leaves to the
background and without what they take when idle. Particles between nodes are calls; what goes to the JS client, and its
CPU, isn't among them. Where others work at the same time there are none: they would be those of all together.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import subprocess
import tarfile
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from operator import le
from pathlib import Path
from typing import Any

import structlog
import trio

from aqua_compat import AquaClient, connect
from aqua_compat.particles.engine.installation import install
from benchmarks.network_sizes import take_network_sizes
from benchmarks.observed import BACKGROUND, Costs, Observed, observed
from benchmarks.processes import cpu_seconds, resident_megabytes
from benchmarks.timing import Timing, timed
from tests.aqua.js_peer import CallFailed, JsPeer, JsProcess
from tests.aqua.nodes import AquaNetwork, websocket
from tests.aqua.npm import Tools, tools
from tests.end_to_end.network import NODES, eventually

CREATE_AIM, ROUND_TRIP_AIM, SLOWED_AIM = 150.0, 20.0, 20.0  # ms, ms, %
HELD, DONE = 400, 150  # particles that are kept at the same time
CLIENTS = 8
RATE_AIM = 20  # calls a second of all of them, on six nodes


def report(
    what: str,
    timing: Timing,
    costs: Costs | None = None,
    *,
    aim: float | None = None,
    reference: Timing | None = None,
) -> None:
    """Prints one measurement, with what is aimed at, how many times a native operation it takes, and what it cost all
    nodes."""
    beside = f"  aim: p50 < {aim:.0f} ms" if aim else ""
    beside += f"  {timing.p50 / reference.p50:.1f} x native" if reference else ""
    print(f"{what:38} {timing}{beside}", flush=True)
    if costs is not None:
        print(f"{'':38} {costs}", flush=True)


def interpreter_steps(js: Tools, folder: Path) -> None:
    """Steps of one instance in this thread: the first of a particle, and the one after its calls were answered."""
    from aqua_compat.particles.engine.installation import load_module
    from aqua_compat.particles.engine.interpreter import Interpreter
    from aqua_compat.particles.engine.steps import CallResult, Step, StepLimits, build_results
    from aqua_compat.particles.settings import AquaSettings
    from overlay.identity import Identity

    began = time.perf_counter()
    module, engine = load_module(folder)
    loaded = time.perf_counter() - began
    print(f"{'compiled interpreter loaded':38} {loaded * 1000:8.2f} ms")
    identity, settings = Identity.generate(), AquaSettings()
    instance = Interpreter(module, engine, identity.seed, settings.max_memory)
    limits = StepLimits(script=2**20, particle=2**22, call_result=2**20, calls=2**22)
    for function in ("relayTime", "createResource", "resolveResource", "registerService"):
        code = f"import({str(js.compiled)!r}).then(m => process.stdout.write(m.{function}_script))"
        script = subprocess.run(
            [js.node, "--no-deprecation", "-e", code], check=True, capture_output=True, text=True
        ).stdout
        first, later = [], []
        for number in range(100):
            step = Step(
                script=script,
                previous=b"",
                incoming=b"",
                results=build_results({}),
                init_peer_id=identity.peer_id,
                current_peer_id=identity.peer_id,
                timestamp=int(time.time() * 1000),
                ttl=60_000,
                particle_id=f"{function} {number}",
                limits=limits,
            )
            before = time.perf_counter()
            outcome = instance.run(step, 2**30)
            first.append(time.perf_counter() - before)
            assert outcome.ret_code == 0, outcome.error
            while outcome.calls:  # until it would travel
                results = {number: CallResult(0, '"answer"') for number in outcome.calls}
                again = {"previous": outcome.data, "results": build_results(results)}
                before = time.perf_counter()
                outcome = instance.run(_with(step, **again), 2**30)
                later.append(time.perf_counter() - before)
                if outcome.ret_code != 0:
                    break
        print(
            f"{f'step: {function}, {len(script) // 1024} KiB of AIR':38} {_spread(first)}; later ones {_spread(later)}"
        )


def _with(step: Any, **changes: Any) -> Any:
    import msgspec

    return msgspec.structs.replace(step, **changes)


def _spread(durations: list[float]) -> str:
    ordered = sorted(durations)
    return f"p50 {ordered[len(ordered) // 2] * 1000:.2f} ms  p99 {ordered[int(len(ordered) * 0.99)] * 1000:.2f} ms"


class Operations:
    """The functions under measurement, for `timed`: each call's n-th resource is a new one, or one of `ids`."""

    def __init__(self, js: JsPeer, native: AquaClient, ttl: float, labels: str = "label") -> None:
        self.js = js
        self.native = native
        self.ttl = ttl
        self.ids: list[str] = []
        self.failures: list[str] = []
        self._named = labels
        self._labels = 0

    async def call(self, function: str, *arguments: object, ttl: float | None = None) -> Any:
        """Calls a function of the script; None, noted among the failures, where it fails."""
        try:
            return await self.js.call(function, *arguments, ttl=ttl or self.ttl)
        except CallFailed as failure:
            self.failures.append(str(failure))
            return None

    async def round_trip(self, _: int) -> bool:
        """Asks the relay for its time; whether it answered."""
        return await self.call("relayTime") is not None

    async def create(self, _: int) -> bool:
        """Creates a resource by a script; whether that worked."""
        created = await self.call("createResource", self._label())
        return self._kept(*(created or (None, ["no answer"])))

    async def register(self, number: int) -> bool:
        """Registers a service by a script; whether that worked."""
        done = await self.call("registerService", self.ids[number % len(self.ids)], f"{number}", self.js.peer_id, "s")
        if done is None or not done[0]:
            self.failures.append(str(done))
        return done is not None and done[0]

    async def resolve(self, number: int) -> bool:
        """Resolves a resource by a script; whether it was found."""
        found = await self.call("resolveResource", self.ids[number % len(self.ids)], 1)
        return found is not None and found[0] is not None

    async def create_native(self, _: int) -> bool:
        """Creates a resource by the Python API; whether that worked."""
        return self._kept(*await self.native.createResource(self._label()))

    async def register_native(self, number: int) -> bool:
        """Registers a service by the Python API; whether that worked."""
        ids = self.ids
        return (await self.native.registerService(ids[number % len(ids)], f"{number}", self.native.peer_id, "s"))[0]

    async def resolve_native(self, number: int) -> bool:
        """Resolves a resource by the Python API; whether it was found."""
        return (await self.native.resolveResource(self.ids[number % len(self.ids)], 1))[0] is not None

    def _label(self) -> str:
        self._labels += 1
        return f"{self._named} {self._labels}"

    def _kept(self, resource_id: str | None, errors: list[str]) -> bool:
        if resource_id is None:
            self.failures.append(str(errors))
            return False
        self.ids.append(resource_id)
        return True


async def operations(
    made: Operations, network: AquaNetwork, all_nodes: Observed, count: int, process: JsProcess
) -> None:
    """Measures each operation by script and by the Python API, and prints both."""
    await timed(made.create_native, count, 4)
    await trio.sleep(BACKGROUND)  # what goes on there isn't what is measured next
    native = [
        await all_nodes.figures(call, count) for call in (made.create_native, made.register_native, made.resolve_native)
    ]
    for name, figures in zip(("createResource", "registerService", "resolveResource"), native, strict=True):
        report(f"reference: native {name}", *figures)
    create, register, resolve = (figures.timing for figures in native)
    report(
        "round trip to the relay, 1 in flight",
        *await all_nodes.figures(made.round_trip, count * 2),
        aim=ROUND_TRIP_AIM,
    )
    report("round trip to the relay, 20 in flight", *await all_nodes.figures(made.round_trip, count * 5, 20))
    for in_flight in (1, 20):
        number = count if in_flight == 1 else count * 2
        beside = f"{in_flight} in flight"
        created = await all_nodes.figures(made.create, number, in_flight)
        report(f"createResource, {beside}", *created, aim=CREATE_AIM if in_flight == 1 else None, reference=create)
        report(
            f"registerService, {beside}",
            *await all_nodes.figures(made.register, number, in_flight),
            reference=register,
        )
        report(
            f"resolveResource, {beside}",
            *await all_nodes.figures(made.resolve, number, in_flight),
            reference=resolve,
        )
    await cpu(made, network, count, process)
    report("createResource, 50 at once", *await all_nodes.figures(made.create, 50, 50))
    for failure in made.failures[:5]:
        print(f"  failed: {failure}")


async def cpu(made: Operations, network: AquaNetwork, count: int, process: JsProcess) -> None:
    """Who works for a createResource: on one core after the other, no wait is in these figures."""
    process_ids = [node.process_id or 0 for node in network.nodes] + [process.process_id]
    before = [cpu_seconds(process_id) for process_id in process_ids]
    await timed(made.create, count, 4)
    spent = [(cpu_seconds(p) - b) / count * 1000 for p, b in zip(process_ids, before, strict=True)]
    relay, *others, client = spent
    print(
        f"{'CPU of one createResource':38} {sum(spent):8.2f} ms: client {client:.1f}, relay {relay:.1f},"
        f" each of the others {sum(others) / len(others):.1f}",
        flush=True,
    )


async def meanwhile(made: Operations, neighbour: AquaClient, count: int) -> None:
    """Native resolves through the JS client's relay, alone and while that relay runs particles."""

    async def native(number: int) -> bool:
        return (await neighbour.resolveResource(made.ids[number % len(made.ids)], 1))[0] is not None

    alone = await timed(native, count * 5, 1)
    report("native resolveResource, alone", alone)
    loads: list[tuple[str, Callable[[int], Awaitable[bool]], float | None, int]] = [
        ("5 createResource of Aqua a second", made.create, 5.0, 1),
        ("5 native createResource a second", made.create_native, 5.0, 1),
        ("Aqua's createResource, 1 in flight", made.create, None, 1),
        ("Aqua's createResource, 20 in flight", made.create, None, 20),
    ]
    for name, call, rate, in_flight in loads:
        async with loaded(call, rate, in_flight):
            busy = await timed(native, count * 5, 1)
        slower = (busy.p50 / alone.p50 - 1) * 100
        aim = f"  aim: < {SLOWED_AIM:.0f} %" if call == made.create else ""
        print(f"  beside {name:36} {busy}  {slower:+.0f} %{aim}", flush=True)


@asynccontextmanager
async def loaded(call: Callable[[int], Awaitable[bool]], rate: float | None, in_flight: int) -> AsyncIterator[None]:
    """Calls go on while the block runs: so many a second, or so many in flight."""
    async with trio.open_nursery() as nursery:

        async def again() -> None:
            while True:
                await call(0)

        async def paced(rate: float) -> None:
            began, number = trio.current_time(), 0
            while True:
                await trio.sleep_until(began + number / rate)
                nursery.start_soon(call, number)
                number += 1

        if rate is not None:
            nursery.start_soon(paced, rate)
        else:
            for _ in range(in_flight):
                nursery.start_soon(again)
        await trio.sleep(1)
        yield
        nursery.cancel_scope.cancel()


async def actors(network: AquaNetwork, made: Operations, neighbour: AquaClient) -> None:
    """What a particle costs that waits on the relay, and what one costs that is done and kept until it expires."""

    async def kept() -> int:
        return int(((await neighbour.registry.status()).particles or {})["actors"])

    relay = network.nodes[0]
    await eventually(kept, lambda count: count == 0, 60)

    async def hold(_: int) -> bool:
        return await made.call("slowly", relay.peer_id, 20_000, ttl=60) is not None

    async def create(number: int) -> bool:
        return await made.call("createResource", f"kept {number}", ttl=60) is not None

    for name, call, many, in_flight in (
        ("waiting in a call", hold, HELD, HELD),
        ("done with createResource", create, DONE, 20),
    ):
        before = resident_megabytes(relay.process_id or 0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(timed, call, many, in_flight)
            await eventually(kept, partial(le, many), 120)
            particles = (await neighbour.registry.status()).particles or {}
            grown = (resident_megabytes(relay.process_id or 0) - before) * 1024 / many
            print(
                f"{f'memory per particle {name}':45} {grown:6.1f} KiB on the relay ({before:.0f} MB before),"
                f" {particles['bytes'] / many / 1024:.1f} KiB of it accounted for",
                flush=True,
            )
        await eventually(kept, lambda count: count == 0, 120)


async def clients(js: Tools, network: AquaNetwork, native: AquaClient, seconds: float) -> None:
    """Several JS clients, of one process and on all nodes, which create, register and resolve as fast as they can: the
    calls a second, what CPU each took, which other work on this machine doesn't change, and what the nodes' memory does
    meanwhile."""
    done = 0
    failures: list[list[str]] = []
    async with started(js) as process, AsyncExitStack() as stack, trio.open_nursery() as nursery:

        async def work(made: Operations) -> None:
            nonlocal done
            while True:
                for operation in (made.create, made.register, made.resolve):
                    is_done = await operation(len(made.ids) - 1)
                    done += is_done  # not in one: what others add meanwhile would be lost

        for number in range(CLIENTS):
            peer = await stack.enter_async_context(process.peer(websocket(network.nodes[number % len(network.nodes)])))
            made = Operations(peer, native, ttl=20, labels=f"of {number}")
            failures.append(made.failures)
            nursery.start_soon(work, made)
        process_ids = [node.process_id or 0 for node in network.nodes]
        for quarter in range(1, 5):
            before, of_client, of_nodes = done, cpu_seconds(process.process_id), sum(map(cpu_seconds, process_ids))
            await trio.sleep(seconds / 4)
            memory = [resident_megabytes(process_id) for process_id in process_ids]
            what, rate = f"{CLIENTS} clients at once, quarter {quarter}", (done - before) * 4 / seconds
            of_client = (cpu_seconds(process.process_id) - of_client) / max(done - before, 1) * 1000
            of_nodes = (sum(map(cpu_seconds, process_ids)) - of_nodes) / max(done - before, 1) * 1000
            print(
                f"{what:38} {rate:8.1f} calls/s (aim {RATE_AIM}), nodes {min(memory):.0f} to {max(memory):.0f} MB;"
                f" CPU a call: nodes {of_nodes:.0f} ms, client {of_client:.0f} ms",
                flush=True,
            )
        nursery.cancel_scope.cancel()
    for failure in [failure for some in failures for failure in some][:5]:
        print(f"  failed: {failure}")


@asynccontextmanager
async def started(js: Tools) -> AsyncIterator[JsProcess]:
    """A process for JS clients."""
    process = JsProcess(js)
    try:
        async with process.within():
            yield process
    finally:
        process.close()


def compiled_interpreter(js: Tools, folder: Path) -> Path:
    """The interpreter, and its compiled form, in a folder of its own."""
    with tarfile.open(folder / "avm.tgz", "w:gz", compresslevel=1) as archive:
        archive.add(js.interpreter, "package/dist/avm.wasm")
    return install(folder / "compiled", folder / "avm.tgz").parent


async def main() -> None:
    """Measures, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    take_network_sizes(parser, NODES, least=2)
    parser.add_argument("--count", type=int, default=100, help="calls per figure; cheap ones are more")
    parser.add_argument("--seconds", type=float, default=60.0, help=f"for {CLIENTS} clients at once")
    parser.add_argument("--clients-only", action="store_true", help=f"only {CLIENTS} clients at once")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    for nodes in arguments.nodes:
        await measure(nodes, arguments.count, arguments.seconds, clients_only=arguments.clients_only)


async def measure(nodes: int, count: int, seconds: float, *, clients_only: bool) -> None:
    """Measures a network of so many nodes."""
    js = tools()
    load = os.getloadavg()[0]
    print(f"Python {platform.python_version()}, {nodes} node processes, {os.cpu_count()} cores, load {load:.1f} before")
    with tempfile.TemporaryDirectory() as place:
        network = AquaNetwork(Path(place), nodes, "--log-level", "error")
        await network.start_with(js, compiled_interpreter(js, Path(place)))
        try:
            if clients_only:
                async with connect(network.nodes[1].address) as native:
                    await clients(js, network, native, seconds)
                return
            interpreter_steps(js, network.interpreter_folder)
            async with (
                started(js) as process,
                process.peer(websocket(network.nodes[0])) as peer,
                connect(network.nodes[1].address) as native,
                connect(network.nodes[0].address) as neighbour,
            ):
                made = Operations(peer, native, ttl=20)
                await timed(made.create, 20, 1)  # warm
                await actors(network, made, neighbour)
                async with observed(network.nodes) as askers:
                    await operations(made, network, await askers.knowing_idle(), count, process)
                await meanwhile(made, neighbour, count)
            async with connect(network.nodes[1].address) as native:
                await clients(js, network, native, seconds)
        finally:
            await network.stop()


if __name__ == "__main__":
    trio.run(partial(main))
