"""The original's interpreter: its values in memory, its answers, and how it is kept within bounds."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from aqua_compat.particles.engine.steps import CallResult, StepLimits, Tetraplet
from aqua_compat.particles.errors import InterpreterFailed, StepInterrupted
from tests.unit.aqua_compat.particles.scripts import CLIENT, HOST, OTHER, a_step, an_endless_script, call

if TYPE_CHECKING:
    from aqua_compat.particles.engine.interpreter import Interpreter

TICKS = 10_000  # nothing advances the epoch but the tests that say so

ASK = call(HOST.peer_id, "op", "identity", '"hi" 5', "x")
ROUND = f"(seq {ASK} {call(OTHER.peer_id, 'op', 'concat', 'x.$.a', 'y')})"


@pytest.fixture(scope="module")
def interpreter(make_interpreter: Callable[..., Interpreter]) -> Interpreter:
    return make_interpreter()


def test_null_script_makes_no_calls_and_goes_nowhere(interpreter: Interpreter) -> None:
    outcome = interpreter.run(a_step("(null)"), TICKS)
    assert (outcome.ret_code, outcome.error, outcome.calls, outcome.next_peers) == (0, "", {}, [])
    assert outcome.data


def test_a_call_is_requested_and_its_result_goes_on_to_the_next_peer(
    make_interpreter: Callable[..., Interpreter], interpreter: Interpreter
) -> None:
    first = interpreter.run(a_step(ROUND), TICKS)
    assert first.ret_code == 0
    [(number, request)] = first.calls.items()
    assert (request.service_id, request.function_name, request.arguments) == ("op", "identity", ["hi", 5])
    assert request.tetraplets == [[Tetraplet(CLIENT.peer_id, "", "", "")]] * 2
    assert first.next_peers == []

    result = CallResult(0, json.dumps({"a": [1, 2]}))
    second = interpreter.run(a_step(ROUND, first.data, results={number: result}), TICKS)
    assert (second.ret_code, second.calls, second.next_peers) == (0, {}, [OTHER.peer_id])

    other = make_interpreter(OTHER.seed)
    third = other.run(a_step(ROUND, incoming=second.data, on=OTHER), TICKS)
    assert third.ret_code == 0
    [request] = third.calls.values()
    assert request.arguments == [[1, 2]]
    assert request.tetraplets == [[Tetraplet(HOST.peer_id, "op", "identity", ".$.a")]]


def test_failed_call_is_caught_by_xor(interpreter: Interpreter) -> None:
    caught = call(OTHER.peer_id, "op", "noop", ":error:.$.message")
    script = f"(xor {call(HOST.peer_id, 'no', 'such')} {caught})"
    first = interpreter.run(a_step(script), TICKS)
    [number] = first.calls
    second = interpreter.run(a_step(script, first.data, results={number: CallResult(1, '"gone"')}), TICKS)
    assert (second.ret_code, second.next_peers) == (0, [OTHER.peer_id])


def test_script_that_isnt_air_is_an_error(interpreter: Interpreter) -> None:
    outcome = interpreter.run(a_step("(bad"), TICKS)
    assert outcome.ret_code == 1
    assert "can't be parsed" in outcome.error


def test_garbage_for_data_is_an_error_and_leaves_what_was_known(interpreter: Interpreter) -> None:
    known = interpreter.run(a_step(ROUND), TICKS).data
    outcome = interpreter.run(a_step(ROUND, known, b"garbage"), TICKS)
    assert outcome.ret_code == 3
    assert outcome.data == known


def tampered(data: bytes) -> bytes:
    """Another result in the same place, of the same length."""
    assert data.count(b"told by the host") == 1
    return data.replace(b"told by the host", b"told by a stranger"[:16])


def test_tampered_data_is_refused(make_interpreter: Callable[..., Interpreter], interpreter: Interpreter) -> None:
    first = interpreter.run(a_step(ROUND), TICKS)
    [number] = first.calls
    result = CallResult(0, '{"a":"told by the host"}')
    second = interpreter.run(a_step(ROUND, first.data, results={number: result}), TICKS)
    outcome = make_interpreter(OTHER.seed).run(a_step(ROUND, incoming=tampered(second.data), on=OTHER), TICKS)
    assert outcome.ret_code in (8, 9)
    assert outcome.calls == {}


def test_data_signed_by_another_than_the_host_is_refused(make_interpreter: Callable[..., Interpreter]) -> None:
    forger = make_interpreter(OTHER.seed)  # who acts as the host without its key
    first = forger.run(a_step(ROUND), TICKS)
    [number] = first.calls
    second = forger.run(a_step(ROUND, first.data, results={number: CallResult(0, '{"a": 1}')}), TICKS)
    outcome = forger.run(a_step(ROUND, incoming=second.data, on=OTHER), TICKS)
    assert outcome.ret_code in (8, 9)


def test_data_of_another_particle_is_refused(
    make_interpreter: Callable[..., Interpreter], interpreter: Interpreter
) -> None:
    first = interpreter.run(a_step(ROUND, particle_id="one"), TICKS)
    [number] = first.calls
    step = a_step(ROUND, first.data, results={number: CallResult(0, '{"a": 1}')}, particle_id="one")
    replayed = interpreter.run(step, TICKS).data
    other = make_interpreter(OTHER.seed)
    assert other.run(a_step(ROUND, incoming=replayed, on=OTHER, particle_id="one"), TICKS).ret_code == 0
    assert other.run(a_step(ROUND, incoming=replayed, on=OTHER, particle_id="another"), TICKS).ret_code in (8, 9)


def limited(**changes: int) -> StepLimits:
    return StepLimits(**{"script": 10**6, "particle": 10**6, "call_result": 10**6, "calls": 10**6, **changes})


def test_oversized_script_is_refused(interpreter: Interpreter) -> None:
    outcome = interpreter.run(a_step(ROUND, limits=limited(script=len(ROUND) - 1)), TICKS)
    assert outcome.ret_code == 10
    assert "bigger than the limit" in outcome.error
    assert interpreter.run(a_step(ROUND, limits=limited(script=len(ROUND))), TICKS).ret_code == 0


def test_oversized_data_is_refused(interpreter: Interpreter) -> None:
    data = interpreter.run(a_step(ROUND), TICKS).data
    assert interpreter.run(a_step(ROUND, incoming=data, limits=limited(particle=len(data) - 1)), TICKS).ret_code == 10


def test_oversized_result_of_a_call_is_refused(interpreter: Interpreter) -> None:
    first = interpreter.run(a_step(ROUND), TICKS)
    [number] = first.calls
    results = {number: CallResult(0, json.dumps("x" * 100))}
    assert interpreter.run(a_step(ROUND, first.data, results=results, limits=limited(call_result=99)), TICKS).ret_code


def test_calls_with_too_much_in_their_arguments_are_refused(make_interpreter: Callable[..., Interpreter]) -> None:
    long = '"' + "x" * 2000 + '"'
    step = a_step(call(HOST.peer_id, "op", "identity", long), limits=limited(calls=1000))
    with pytest.raises(InterpreterFailed, match="more than 1000"):
        make_interpreter().run(step, TICKS)


def test_endless_script_is_interrupted(make_interpreter: Any) -> None:
    interpreter: Interpreter = make_interpreter()
    script = an_endless_script(HOST.peer_id)
    first = interpreter.run(a_step(script), TICKS)
    [number] = first.calls
    endless = a_step(script, first.data, results={number: CallResult(0, json.dumps(list(range(50))))})
    outcome: list[BaseException] = []

    def run() -> None:
        try:
            interpreter.run(endless, 2)
        except InterpreterFailed as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while thread.is_alive():
        make_interpreter.advance()
        thread.join(0.05)
    [error] = outcome
    assert isinstance(error, StepInterrupted)


def test_script_that_takes_too_much_memory_fails(make_interpreter: Callable[..., Interpreter]) -> None:
    long = call(HOST.peer_id, "op", "identity", '"' + "x" * 2 * 2**20 + '"')
    step = a_step(long, limits=limited(script=2**24, particle=2**24, calls=2**24))
    assert make_interpreter().run(step, TICKS).ret_code == 0
    with pytest.raises(InterpreterFailed):
        make_interpreter(max_memory=12 * 2**20).run(step, TICKS)


def test_deeply_nested_script_fails_or_is_refused_without_harm(make_interpreter: Callable[..., Interpreter]) -> None:
    depth = 20_000
    step = a_step("(seq (null) " * depth + "(null)" + ")" * depth, limits=limited())
    with suppress(InterpreterFailed):
        assert make_interpreter().run(step, TICKS).ret_code != 1
    assert make_interpreter().run(a_step("(null)"), TICKS).ret_code == 0


def test_instance_serves_many_steps_without_growing(interpreter: Interpreter) -> None:
    for _ in range(20):
        interpreter.run(a_step(ROUND), TICKS)
    before = interpreter.memory_bytes
    for _ in range(200):
        interpreter.run(a_step(ROUND), TICKS)
    assert interpreter.memory_bytes == before
