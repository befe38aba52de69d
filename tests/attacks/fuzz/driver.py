"""Gives a parser its inputs, and holds it to what it may do: raise its own errors, within 20 ms of CPU.

A slow input is tried again: what the machine or a full collection of others' garbage took isn't the input's. Its own
garbage is: collecting goes on while it is measured, but for what was there before.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable
from types import GeneratorType
from typing import Final

import cbor2
import msgspec

from tests.attacks.fuzz.grammar import hostile
from tests.attacks.fuzz.mutation import damaged, mutated
from tests.attacks.fuzz.parsers import Parser

BUDGET: Final = 0.02  # seconds of CPU, of a core that does `REFERENCE` within `USUAL`
REFERENCE: Final = [[]] * 39_000
USUAL: Final = 0.014  # seconds of CPU, for encoding it
TRIES: Final = 3
MOST_FAULTS: Final = 20  # of a report that are kept, with their inputs


def is_within(took: float, budget: float) -> bool:
    """Whether that many seconds of CPU are within a budget, on this machine as busy as it is now: what others do on it
    makes each turn take up to twice as long."""
    if took <= budget:
        return True
    measured: list[float] = []
    for _ in range(TRIES):
        began = time.thread_time()
        cbor2.dumps(REFERENCE)
        measured.append(time.thread_time() - began)
    return took <= budget * max(min(measured) / USUAL, 1.0)


class Fault(msgspec.Struct, frozen=True):
    """An input that a parser didn't bear."""

    parser: str
    number: int
    what: str
    encoded: bytes

    def __str__(self) -> str:
        shown = self.encoded[:60].hex() + ("..." if len(self.encoded) > 60 else "")
        return f"{self.parser}, input {self.number} ({len(self.encoded)} bytes, {shown}): {self.what}"


class Report(msgspec.Struct):
    """What became of a parser's inputs. `slowest` in seconds of CPU, `slowest_input` by its number."""

    parser: str
    inputs: int = 0
    refused: int = 0
    slowest: float = 0.0
    slowest_input: int = 0
    faults: list[Fault] = msgspec.field(default_factory=list)
    fault_count: int = 0

    def note(self, fault: Fault) -> None:
        """Counts a fault, and keeps it if it is one of the first."""
        self.fault_count += 1
        if len(self.faults) < MOST_FAULTS:
            self.faults.append(fault)

    def __str__(self) -> str:
        took = f"{self.slowest * 1000:6.2f} ms (input {self.slowest_input})"
        return f"{self.parser:34} {self.inputs:8} inputs {self.refused:8} refused {took:28} {self.fault_count} faults"


def input_of(parser: Parser, seed: int, number: int) -> bytes:
    """An input, a function of its arguments alone."""
    randomness = random.Random(f"{seed} {parser.name} {number}")
    chance = randomness.random()
    if parser.form is None:
        encoded = randomness.choice(parser.seeds)
        if chance < 0.05:
            encoded = randomness.randbytes(randomness.randrange(200))
        for _ in range(randomness.choice((1, 1, 2, 3))):
            encoded = damaged(randomness, encoded)
        if chance > 0.99:
            encoded *= max(int(parser.longest ** randomness.random()) // max(len(encoded), 1), 1)
    elif chance < 0.15:
        encoded = hostile(randomness, parser.longest)
    elif chance < 0.18:
        encoded = randomness.choice(parser.seeds)
    else:
        encoded = mutated(randomness, parser.seeds, parser.form, parser.longest)
    return encoded[: parser.longest]


def run(
    parser: Parser, seed: int, count: int, first: int = 0, before_each: Callable[[int], object] = lambda _: None
) -> Report:
    """Tries `count` inputs. `before_each` is told the number of each before it is tried."""
    report = Report(parser.name)
    settle()
    for number in range(first, first + count):
        before_each(number)
        _try(parser, number, input_of(parser, seed, number), report)
    return report


def settle() -> None:
    """Have what is there already not looked through again and again, nor all that the tests have imported."""
    gc.freeze()


def _try(parser: Parser, number: int, encoded: bytes, report: Report) -> None:
    report.inputs += 1
    took = _measured(parser, number, encoded, report)
    for _ in range(TRIES - 1):
        if is_within(took, BUDGET):
            break
        gc.collect()
        took = min(took, _measured(parser, number, encoded, Report(parser.name)))
    if took > report.slowest:
        report.slowest, report.slowest_input = took, number
    if not is_within(took, BUDGET):
        report.note(Fault(parser.name, number, f"it took {took * 1000:.1f} ms", encoded))


def _measured(parser: Parser, number: int, encoded: bytes, report: Report) -> float:
    """Seconds of CPU of the longest turn."""
    longest, started = 0.0, time.thread_time()
    try:
        parsed = parser.parse(encoded)
        if isinstance(parsed, GeneratorType):
            for _ in parsed:
                longest, started = max(longest, time.thread_time() - started), time.thread_time()
    except parser.errors:
        report.refused += 1
    except Exception as error:
        report.note(Fault(parser.name, number, f"it raised {error!r}"[:500], encoded))
    return max(longest, time.thread_time() - started)
