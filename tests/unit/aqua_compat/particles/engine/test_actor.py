"""Particles on a node: one step after the other, calls, next peers, expiry, and bounds. In virtual time."""

from __future__ import annotations

import gc
import weakref
from itertools import count

import msgspec
import pytest
import trio
import trio.testing

from aqua_compat.particles.engine.actor import Actor, ActorEnvironment
from aqua_compat.particles.engine.steps import CallRequest, CallResult, Outcome, Step
from aqua_compat.particles.errors import InterpreterFailed
from aqua_compat.particles.metrics import Metrics
from aqua_compat.particles.particle import MSGPACK, sign
from aqua_compat.particles.settings import AquaSettings
from overlay.errors import Refusal
from tests.unit.aqua_compat.particles.scripts import CLIENT, HOST, NOW, OTHER, a_particle
from tests.unit.aqua_compat.particles.small_world import ScriptedCalls, ScriptedSteps, a_server, outcome, request


def results_of(step: Step) -> dict[str, list[object]]:
    decoded: dict[str, list[object]] = msgspec.msgpack.decode(step.results[len(MSGPACK) :])
    return decoded


async def settle() -> None:
    await trio.sleep(1)


async def test_each_step_takes_what_was_known_and_the_next_copy(autojump_clock) -> None:
    steps = ScriptedSteps(lambda step: outcome(step.previous + step.incoming))
    async with a_server(steps) as server:
        for data in (b"a", b"b", b"c"):
            await server.bring(a_particle(data=data))
        await settle()
    assert [(step.previous, step.incoming) for step in steps.steps] == [(b"", b"a"), (b"a", b"b"), (b"ab", b"c")]
    assert steps.most_at_once == 1


async def test_step_knows_the_particle_and_the_host(autojump_clock) -> None:
    steps = ScriptedSteps(lambda step: outcome())
    async with a_server(steps) as server:
        await server.bring(a_particle("(call)", ttl=7))
        await settle()
    [step] = steps.steps
    assert (step.script, step.init_peer_id, step.current_peer_id) == ("(call)", CLIENT.peer_id, HOST.peer_id)
    assert (step.timestamp, step.ttl, step.particle_id) == (int(NOW * 1000), 7000, "a particle")


async def test_different_particles_run_at_the_same_time(autojump_clock) -> None:
    steps = ScriptedSteps(lambda step: outcome())
    steps.duration = 1.0
    async with a_server(steps) as server:
        for number in range(10):
            await server.bring(a_particle(particle_id=str(number)))
        await trio.sleep(1.5)
        assert len(steps.steps) == 10
        assert not any(steps.running.values())


async def test_results_of_calls_make_the_next_step(autojump_clock) -> None:
    asked = iter([{1: request("identity", 1), 2: request("identity", 2)}])
    steps = ScriptedSteps(lambda step: outcome(b"known", calls=next(asked, {})))
    calls = ScriptedCalls()
    async with a_server(steps, calls) as server:
        await server.bring(a_particle())
        await settle()
    assert sorted(call.arguments for call in calls.calls) == [[1], [2]]
    assert calls.contexts[0].init_peer_id == CLIENT.peer_id
    first, *later = steps.steps
    assert results_of(first) == {}
    told = {number: result for step in later for number, result in results_of(step).items()}
    assert told == {"1": {"ret_code": 0, "result": '"done"'}, "2": {"ret_code": 0, "result": '"done"'}}
    assert all((step.previous, step.incoming) == (b"known", b"") for step in later)


async def test_calls_run_at_the_same_time(autojump_clock) -> None:
    async def slow(call: CallRequest) -> CallResult:
        await trio.sleep(1)
        return CallResult(0, "1")

    first = iter([{number: request("timeout") for number in range(20)}])
    steps = ScriptedSteps(lambda step: outcome(calls=next(first, {})))
    async with a_server(steps, ScriptedCalls(slow)) as server:
        began = trio.current_time()
        await server.bring(a_particle())
        await trio.sleep(1.5)
        assert server.counts()["calls"] == 0
        assert trio.current_time() - began < 2


async def test_particle_goes_to_the_next_peers_with_what_came_out(autojump_clock) -> None:
    particle = a_particle(data=b"old")
    steps = ScriptedSteps(lambda step: outcome(b"new", to=[OTHER.peer_id, CLIENT.peer_id]))
    async with a_server(steps) as server:
        server.reach.linked.add(OTHER.peer_id)
        server.reach.connected.add(CLIENT.peer_id)
        await server.bring(particle)
        await settle()
    assert sorted((way, to) for way, to, _ in server.reach.sent) == sorted(
        [("link", OTHER.peer_id), ("stream", CLIENT.peer_id)]
    )
    assert all(sent == particle.with_data(b"new") for _, _, sent in server.reach.sent)


async def test_particle_for_the_node_itself_is_taken_in_again(autojump_clock) -> None:
    asked = iter([outcome(b"first", to=[HOST.peer_id, HOST.peer_id]), outcome(b"second")])
    steps = ScriptedSteps(lambda step: next(asked))
    async with a_server(steps) as server:
        await server.bring(a_particle())
        await settle()
    assert [(step.previous, step.incoming) for step in steps.steps] == [(b"", b""), (b"first", b"first")]
    assert server.reach.sent == []


async def test_failed_step_leaves_what_was_known(autojump_clock) -> None:
    def act(step: Step) -> Outcome:
        if step.incoming == b"bad":
            raise InterpreterFailed("trapped")
        return outcome(b"known")

    steps = ScriptedSteps(act)
    async with a_server(steps) as server:
        for data in (b"good", b"bad", b"good"):
            await server.bring(a_particle(data=data))
        await settle()
        assert server.counts()["dropped: step failed"] == 1
    assert [step.previous for step in steps.steps] == [b"", b"known", b"known"]


async def test_builtin_that_fails_by_a_fault_of_ours_ends_neither_node_nor_particle(autojump_clock) -> None:
    async def broken(call: CallRequest) -> CallResult:
        raise RuntimeError("a fault of ours")

    asked = iter([{1: request("identity")}])
    steps = ScriptedSteps(lambda step: outcome(calls=next(asked, {})))
    async with a_server(steps, ScriptedCalls(broken)) as server:
        await server.bring(a_particle())
        await settle()
    assert results_of(steps.steps[1]) == {"1": {"ret_code": 1, "result": '"internal error"'}}


# Judging


async def refusal(server, particle) -> str:
    with pytest.raises(Refusal) as refused:
        await server.bring(particle)
    return refused.value.code


async def test_expired_particle_is_refused(autojump_clock) -> None:
    async with a_server(ScriptedSteps(lambda step: outcome())) as server:
        assert await refusal(server, a_particle(at=NOW - 11, ttl=10)) == "expired"
        assert server.counts()["dropped: expired"] == 1


async def test_particle_that_would_live_too_long_is_refused(autojump_clock) -> None:
    async with a_server(ScriptedSteps(lambda step: outcome()), max_lifetime=60.0) as server:
        assert await refusal(server, a_particle(ttl=61)) == "too long-lived"
        assert await refusal(server, a_particle(at=NOW + 10**6, ttl=1)) == "too long-lived"


async def test_particle_that_its_initiator_didnt_sign_is_refused(autojump_clock) -> None:
    forged = msgspec.structs.replace(a_particle(), script="(never)")
    async with a_server(ScriptedSteps(lambda step: outcome())) as server:
        assert await refusal(server, forged) == "bad signature"
        assert server.counts()["actors"] == 0


async def test_signature_of_a_known_particle_on_another_script_is_refused(autojump_clock) -> None:
    steps = ScriptedSteps(lambda step: outcome())
    async with a_server(steps) as server:
        await server.bring(a_particle())
        assert await refusal(server, msgspec.structs.replace(a_particle(), script="(never)")) == "bad signature"
        await settle()
    assert [step.script for step in steps.steps] == ["(null)"]


# Ends


async def test_everything_of_a_particle_ends_at_its_deadline(autojump_clock) -> None:
    async def for_ever(call: CallRequest) -> CallResult:
        await trio.sleep_forever()

    first = iter([{1: request("timeout")}])
    steps = ScriptedSteps(lambda step: outcome(b"data", calls=next(first, {})))
    async with a_server(steps, ScriptedCalls(for_ever)) as server:
        await server.bring(a_particle(ttl=10))
        await trio.sleep(9.9)
        assert (server.counts()["actors"], server.counts()["calls"]) == (1, 1)
        await trio.sleep(1.2)
        assert (server.counts()["actors"], server.counts()["calls"], server.counts()["bytes"]) == (0, 0, 0)


async def test_step_that_waits_for_its_turn_ends_at_the_deadline(autojump_clock) -> None:
    steps = ScriptedSteps(lambda step: outcome())
    steps.duration = 10**4
    async with a_server(steps) as server:
        await server.bring(a_particle(ttl=5))
        await trio.sleep(5.1)
        assert not any(steps.running.values())


async def test_particle_isnt_sent_after_its_deadline(autojump_clock) -> None:
    steps = ScriptedSteps(lambda step: outcome(to=[OTHER.peer_id]))
    async with a_server(steps) as server:
        server.reach.connected.add(OTHER.peer_id)
        server.reach.stalls = True
        await server.bring(a_particle(ttl=3))
        await trio.sleep(2.9)
        assert server.counts()["sending"] == 1
        await trio.sleep(0.2)
        assert server.counts()["sending"] == 0


class Script(str):
    """A text that can be referred to weakly."""

    __slots__ = ("__weakref__",)


@pytest.mark.parametrize("ends", ["idle", "in a call", "in a step"])
async def test_memory_of_a_particle_is_free_at_once_when_it_ends(ends: str, autojump_clock) -> None:
    """Script and data of particles may be megabytes: they can't wait for the garbage collector, which seldom runs."""

    async def answer(call: CallRequest) -> CallResult:
        await trio.sleep(3 if ends == "in a call" else 0)
        return CallResult(0, "1")

    asked = iter([{1: request("identity")}])
    steps = ScriptedSteps(lambda step: outcome(b"known", calls=next(asked, {})))
    steps.duration = 3 if ends == "in a step" else 0.01
    script = Script("(null)")
    particle = msgspec.structs.replace(a_particle(), script=script)
    gc.collect()
    gc.disable()
    try:
        async with trio.open_nursery() as nursery:
            environment = ActorEnvironment(
                HOST.peer_id, AquaSettings(), steps, ScriptedCalls(answer), lambda *_: None, nursery, Metrics()
            )
            actor = Actor(particle, "a client", trio.current_time() + 10, environment, Actor.end)
            alive = [weakref.ref(actor), weakref.ref(script)]
            actor.begin(b"data")
            await trio.sleep(1)
            steps.steps.clear()
            actor.end()
            del particle, script, actor
            await trio.testing.wait_all_tasks_blocked()
            assert environment.memory.total == environment.particles.total == environment.calls_under_way.total == 0
        assert [reference() for reference in alive] == [None, None]
    finally:
        gc.enable()


@pytest.mark.parametrize("ends", ["idle", "after a failed step", "in a call", "in a step", "by giving way"])
async def test_nothing_of_expired_particles_waits_for_the_garbage_collector(ends: str, autojump_clock) -> None:
    async def answer(call: CallRequest) -> CallResult:
        await trio.sleep(100 if ends == "in a call" else 0)
        return CallResult(0, "1")

    def act(step: Step) -> Outcome:
        if ends == "after a failed step":
            raise InterpreterFailed("trapped")
        return outcome(b"known", calls={} if step.previous else {1: request("identity")})

    steps = ScriptedSteps(act)
    steps.duration = 100 if ends == "in a step" else 0.01
    most = 5 if ends == "by giving way" else 1000
    gc.collect()
    gc.disable()
    try:
        async with a_server(steps, ScriptedCalls(answer), max_actors=most, max_actors_per_peer=most) as server:
            for number in range(10):
                await server.bring(a_particle(particle_id=str(number), ttl=3))
                await trio.sleep(0.05)
            assert server.counts()["actors"] == min(most, 10)
            await trio.sleep(5)
            assert server.counts()["actors"] == 0
            assert [thing for thing in gc.get_objects() if isinstance(thing, Actor)] == []
    finally:
        gc.enable()


# Bounds


async def test_copies_that_one_peer_brought_for_particles_of_others_give_way(autojump_clock) -> None:
    """Else a peer without particles of its own could take all the memory, and nothing would make it give way."""
    steps = ScriptedSteps(lambda step: outcome(step.incoming))
    steps.duration = 5.0
    async with a_server(steps, max_bytes=100_000, max_bytes_per_peer=80_000) as server:
        for number in range(4):
            await server.bring(a_particle(particle_id=str(number)), source=f"client {number}")
        await trio.sleep(0.1)
        for number in range(4):
            await server.bring(a_particle(particle_id=str(number), data=b"x" * 19_000), source="copier")
        await server.bring(a_particle(particle_id="new", data=b"y" * 20_000), source="another client")
        assert server.counts()["copies dropped early"] >= 1
        assert server.counts()["actors"] == 5
        await trio.sleep(8.0)
        copies = [step.incoming for step in steps.steps]
        assert b"y" * 20_000 in copies
        assert copies.count(b"x" * 19_000) == 4 - server.counts()["copies dropped early"]
        await trio.sleep(8.0)
        assert server.counts()["bytes"] == 0


async def test_results_in_the_step_of_a_copy_that_gives_way_go_into_the_next(autojump_clock) -> None:
    async def answer(call: CallRequest) -> CallResult:
        await trio.sleep(call.arguments[0])
        return CallResult(0, "1")

    asked = iter([{1: request("timeout", 1), 2: request("timeout", 2)}])
    steps = ScriptedSteps(lambda step: outcome(calls=next(asked, {})))
    async with a_server(steps, ScriptedCalls(answer), max_bytes=60_000, max_bytes_per_peer=50_000) as server:
        await server.bring(a_particle(), source="a client")
        await trio.sleep(0.9)
        steps.duration = 3.0
        await trio.sleep(0.2)
        await server.bring(a_particle(data=b"x" * 40_000), source="copier")
        await trio.sleep(3.0)
        answered = {"2": {"ret_code": 0, "result": "1"}}
        assert [(len(step.incoming), results_of(step)) for step in steps.steps[2:]] == [(40_000, answered)]
        await server.bring(a_particle(particle_id="new", data=b"y" * 20_000), source="another client")
        await trio.sleep(0.1)
        assert server.counts()["copies dropped early"] == 1
        assert server.counts()["actors"] == 2
        again = [step for step in steps.steps[3:] if step.particle_id == "a particle"]
        assert [(len(step.incoming), results_of(step)) for step in again] == [(0, answered)]


async def test_copies_of_one_particle_that_wait_are_bounded(autojump_clock) -> None:
    steps = ScriptedSteps(lambda step: outcome())
    steps.duration = 5.0
    async with a_server(steps, max_waiting=3) as server:
        await server.bring(a_particle())
        await trio.sleep(0.1)
        for _ in range(3):
            await server.bring(a_particle())
        assert await refusal(server, a_particle()) == "too many copies"


async def test_particles_that_are_done_make_room_for_new_ones_of_the_same_peer(autojump_clock) -> None:
    async with a_server(ScriptedSteps(lambda step: outcome()), max_actors_per_peer=5) as server:
        for number in range(20):
            await server.bring(a_particle(particle_id=str(number)))
            await trio.sleep(0.1)
        assert server.counts()["actors"] == 5
        assert server.counts()["forgotten early"] == 15


async def test_peer_with_too_many_particles_under_way_is_refused_and_others_arent(autojump_clock) -> None:
    steps = ScriptedSteps(lambda step: outcome())
    steps.duration = 5.0
    async with a_server(steps, max_actors_per_peer=5) as server:
        for number in range(5):
            await server.bring(a_particle(particle_id=str(number)))
        assert await refusal(server, a_particle(particle_id="more")) == "too much of this peer"
        await server.bring(a_particle(particle_id="other"), source="another client")


async def test_when_memory_is_full_whoever_holds_most_makes_room(autojump_clock) -> None:
    steps = ScriptedSteps(lambda step: outcome(step.incoming))
    steps.duration = 5.0
    sizes = {"max_bytes": 100_000, "max_bytes_per_peer": 90_000}
    async with a_server(steps, **sizes) as server:
        for number in range(8):
            await server.bring(a_particle(particle_id=str(number), data=b"x" * 6_000), source="greedy")
        for number in range(10):
            await server.bring(a_particle(particle_id=f"modest {number}", data=b"x" * 400), source=f"modest {number}")
        assert server.counts()["ended early"] >= 1
        assert server.counts()["bytes"] <= 100_000
        await trio.sleep(5.1)
        assert {step.particle_id for step in steps.steps} >= {f"modest {number}" for number in range(10)}


async def test_data_that_grows_beyond_the_bound_isnt_kept(autojump_clock) -> None:
    steps = ScriptedSteps(lambda step: outcome(b"x" * 50_000, to=[OTHER.peer_id]))
    async with a_server(steps, max_bytes_per_peer=40_000) as server:
        await server.bring(a_particle())
        await settle()
        assert server.counts()["dropped: data too large"] == 1
        assert server.counts()["bytes"] < 10_000
    assert server.reach.sent == []


async def test_results_that_find_no_room_are_errors(autojump_clock) -> None:
    async def large(call: CallRequest) -> CallResult:
        await trio.lowlevel.checkpoint()
        return CallResult(0, "1" * 50_000)

    first = iter([{1: request("identity")}])
    steps = ScriptedSteps(lambda step: outcome(calls=next(first, {})))
    async with a_server(steps, ScriptedCalls(large), max_bytes_per_peer=40_000) as server:
        await server.bring(a_particle())
        await settle()
    assert results_of(steps.steps[1])["1"] == {"ret_code": 1, "result": '"the result found no room on this peer"'}


async def test_calls_beyond_the_bound_fail(autojump_clock) -> None:
    async def slow(call: CallRequest) -> CallResult:
        await trio.sleep(1)
        return CallResult(0, "1")

    first = iter([{number: request("timeout") for number in range(10)}])
    steps = ScriptedSteps(lambda step: outcome(calls=next(first, {})))
    calls = ScriptedCalls(slow)
    async with a_server(steps, calls, max_calls=4) as server:
        await server.bring(a_particle())
        await trio.sleep(0.5)
        assert len(calls.calls) == 4
        failed = results_of(steps.steps[1])
        assert len(failed) == 6
        assert failed["9"] == {"ret_code": 1, "result": '"too many calls are under way on this peer"'}


async def test_script_that_sends_itself_to_itself_for_ever_ends_with_its_particle(autojump_clock) -> None:
    steps = ScriptedSteps(lambda step: outcome(to=[HOST.peer_id]))
    async with a_server(steps) as server:
        await server.bring(a_particle(ttl=2))
        await trio.sleep(4)
        ended = len(steps.steps)
        await trio.sleep(4)
        assert len(steps.steps) == ended
        assert server.counts()["actors"] == 0


async def test_next_peers_beyond_the_bound_are_left_out(autojump_clock) -> None:
    numbers = count()
    steps = ScriptedSteps(lambda step: outcome(to=[OTHER.peer_id, *(str(next(numbers)) for _ in range(100))]))
    async with a_server(steps, max_next_peers=3) as server:
        server.reach.linked.add(OTHER.peer_id)
        await server.bring(a_particle())
        await settle()
        assert server.counts()["dropped: no peer id"] == 2
        assert server.counts()["dropped: too many next peers"] == 1
    assert [to for _, to, _ in server.reach.sent] == [OTHER.peer_id]


async def test_copies_of_a_particle_are_held_against_who_brings_them(autojump_clock) -> None:
    """Whoever saw another's particle can't use up what its own peer gets with copies of it."""
    steps = ScriptedSteps(lambda step: outcome())
    steps.duration = 5.0
    async with a_server(steps, max_waiting=8, max_bytes_per_peer=50_000) as server:
        await server.bring(a_particle(), source="victim")
        await trio.sleep(0.1)
        for _ in range(8):
            await server.bring(a_particle(data=b"x" * 6_000), source="copier")
        with pytest.raises(Refusal, match="copies"):
            await server.bring(a_particle(data=b"x" * 6_000), source="copier")
        await server.bring(a_particle(data=b"mine"), source="victim")
        for number in range(5):
            await server.bring(a_particle(particle_id=str(number), data=b"x" * 1_000), source="victim")
        with pytest.raises(Refusal, match="copier take all"):
            await server.bring(a_particle(particle_id="more"), source="copier")
        await trio.sleep(60)
        assert server.counts()["bytes"] == 0


async def test_copies_of_many_peers_together_are_bounded(autojump_clock) -> None:
    steps = ScriptedSteps(lambda step: outcome())
    steps.duration = 5.0
    async with a_server(steps, max_waiting=2) as server:
        await server.bring(a_particle())
        await trio.sleep(0.1)
        for number in range(8):
            await server.bring(a_particle(), source=f"copier {number}")
        assert await refusal(server, a_particle()) == "too many copies"


async def test_copy_that_would_have_to_end_its_own_particle_is_refused(autojump_clock) -> None:
    steps = ScriptedSteps(lambda step: outcome())
    steps.duration = 5.0
    async with a_server(steps, max_bytes=60_000, max_bytes_per_peer=50_000) as server:
        await server.bring(a_particle(data=b"x" * 40_000), source="heavy")
        with pytest.raises(Refusal, match="make room itself"):
            await server.bring(a_particle(data=b"x" * 20_000), source="light")
        await trio.sleep(20)
        assert server.counts()["bytes"] == 0


async def test_when_all_calls_are_taken_whoever_has_most_makes_room(autojump_clock) -> None:
    async def endless(call: CallRequest) -> CallResult:
        await trio.sleep_forever()
        raise AssertionError

    calls = ScriptedCalls(endless)
    steps = ScriptedSteps(lambda step: outcome(calls={number: request("timeout") for number in range(4)}))
    async with a_server(steps, calls, max_calls_of_all=16, max_calls_per_peer=12) as server:
        for number in range(3):
            await server.bring(a_particle(particle_id=f"greedy {number}"), source="greedy")
        await settle()
        await server.bring(a_particle(particle_id="first"), source="first")
        await settle()
        assert server.counts()["calls"] == 16
        await server.bring(a_particle(particle_id="second"), source="second")
        await settle()
        assert server.counts()["calls"] == 16
        assert server.counts()["ended early"] == 1
        assert [context.source for context in calls.contexts[-4:]] == ["second"] * 4
        await trio.sleep(20)
        assert server.counts()["calls"] == 0
        assert server.counts()["bytes"] == 0


async def test_another_spelling_of_the_initiators_id_is_refused(autojump_clock) -> None:
    alias = msgspec.structs.replace(a_particle(), init_peer_id=CLIENT.peer_id + " ")
    async with a_server(ScriptedSteps(lambda step: outcome())) as server:
        await server.bring(a_particle())
        assert await refusal(server, alias) == "bad signature"
        await trio.sleep(20)
        assert server.counts()["actors"] == 0
        assert server.counts()["bytes"] == 0


async def test_particles_that_share_a_signature_are_two(autojump_clock) -> None:
    """What is signed has no lengths in it: the same bytes can be cut into another id, times and script."""
    one = sign(CLIENT, particle_id="id", timestamp=0x4141414141414141, ttl=0x41414141, script="\x00" * 12 + "(null)")
    other = msgspec.structs.replace(one, id="id" + "A" * 12, timestamp=0, ttl=0, script="(null)")
    assert other.signed_bytes() == one.signed_bytes()
    assert other.is_genuine()
    assert one.is_genuine()
    assert one.key != other.key


async def test_particle_that_comes_while_the_node_ends_is_refused(autojump_clock) -> None:
    async with a_server(ScriptedSteps(lambda step: outcome())) as server:
        pass
    assert await refusal(server, a_particle()) == "ending"
