"""Whole scripts through three peers that run the original's interpreter, over a network in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Any

import trio

from aqua_compat.particles.engine.pool import Pool
from aqua_compat.particles.engine.steps import CallRequest, CallResult
from aqua_compat.particles.metrics import Metrics
from aqua_compat.particles.particle import Particle
from aqua_compat.particles.settings import AquaSettings
from overlay.errors import Refusal
from overlay.identity import Identity
from tests.unit.aqua_compat.particles.scripts import CLIENT, HOST, OTHER, a_particle, an_endless_script, call
from tests.unit.aqua_compat.particles.small_world import MemoryReach, ParticleServer, ScriptedCalls, a_server, clock


class Peers:
    """Particle servers by peer id, and what each was asked."""

    def __init__(self) -> None:
        self.servers: dict[str, ParticleServer] = {}
        self.calls: dict[str, ScriptedCalls] = {}
        self.answered = trio.Event()
        self.answers: list[list[Any]] = []

    async def answer(self, of: Identity, request: CallRequest) -> CallResult:
        await trio.lowlevel.checkpoint()
        if request.function_name == "answer":
            self.answers.append(request.arguments)
            self.answered.set()
        if request.function_name == "numbers":
            return CallResult(0, str(list(range(50))))
        if request.function_name == "fail":
            return CallResult(1, '"it failed"')
        return CallResult(0, f'"{request.function_name} of {of.peer_id}"')

    async def run(self, script: str) -> list[Any]:
        """The arguments of the client's `answer`."""
        await self.servers[CLIENT.peer_id].bring(a_particle(script, at=clock()), source=CLIENT.peer_id)
        with trio.fail_after(10):
            await self.answered.wait()
        return self.answers[0]


@asynccontextmanager
async def peers(make_interpreter: Any) -> AsyncIterator[Peers]:
    everyone = Peers()
    settings = AquaSettings(interpreters=1, step_timeout=0.3)
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        for identity in (CLIENT, HOST, OTHER):
            metrics, reach = Metrics(), MemoryReach()
            pool = Pool(partial(make_interpreter, identity.seed), make_interpreter.advance, settings, metrics)
            await nursery.start(pool.run)
            calls = everyone.calls[identity.peer_id] = ScriptedCalls(partial(everyone.answer, identity))
            reach.linked = {other.peer_id for other in (CLIENT, HOST, OTHER) if other != identity}

            async def bring(peer_id: str, particle: Particle, source: str) -> None:
                with suppress(Refusal):
                    await everyone.servers[peer_id].bring(particle, source)

            def deliver(peer_id: str, particle: Particle, source: str = identity.peer_id) -> None:
                nursery.start_soon(bring, peer_id, particle, source)

            reach.deliver = deliver
            server = await stack.enter_async_context(a_server(pool, calls, host=identity, reach=reach))
            everyone.servers[identity.peer_id] = server
        yield everyone
        nursery.cancel_scope.cancel()


def at(identity: Identity, function: str, arguments: str = "", output: str = "") -> str:
    return call(identity.peer_id, "test", function, arguments, output)


async def test_script_goes_through_its_peers_and_comes_back(make_interpreter: Callable[..., Any]) -> None:
    script = f"(seq {at(HOST, 'one', '', 'x')} (seq {at(OTHER, 'two', 'x', 'y')} {at(CLIENT, 'answer', 'x y')}))"
    async with peers(make_interpreter) as everyone:
        assert await everyone.run(script) == [f"one of {HOST.peer_id}", f"two of {OTHER.peer_id}"]
        [two] = everyone.calls[OTHER.peer_id].calls
        assert two.arguments == [f"one of {HOST.peer_id}"]
        assert two.tetraplets[0][0].peer_pk == HOST.peer_id


async def test_branches_in_parallel_are_merged(make_interpreter: Callable[..., Any]) -> None:
    both = f"(par {at(HOST, 'one', '', 'x')} {at(OTHER, 'two', '', 'y')})"
    script = f"(seq {both} {at(CLIENT, 'answer', 'x y')})"
    async with peers(make_interpreter) as everyone:
        assert await everyone.run(script) == [f"one of {HOST.peer_id}", f"two of {OTHER.peer_id}"]


async def test_failure_is_told_in_the_script(make_interpreter: Callable[..., Any]) -> None:
    script = f"(xor {at(HOST, 'fail')} {at(CLIENT, 'answer', ':error:.$.error_code :error:.$.message')})"
    async with peers(make_interpreter) as everyone:
        assert await everyone.run(script) == [
            10000,
            "Local service error, ret_code is 1, error message is '\"it failed\"'",
        ]


async def test_hostile_script_is_interrupted_and_others_go_on(make_interpreter: Callable[..., Any]) -> None:
    endless = an_endless_script(HOST.peer_id).replace('("op" "identity") [[]]', '("test" "numbers") []')
    async with peers(make_interpreter) as everyone:
        host = everyone.servers[HOST.peer_id]
        await host.bring(a_particle(endless, particle_id="hostile", at=clock()), source="hostile")
        script = f"(seq {at(HOST, 'one', '', 'x')} {at(CLIENT, 'answer', 'x')})"
        assert await everyone.run(script) == [f"one of {HOST.peer_id}"]
        with trio.fail_after(5):
            while not host.counts().get("dropped: step failed"):  # noqa: ASYNC110 - metrics tell nobody
                await trio.sleep(0.01)
