"""How values lie in the interpreter's memory: packed, little endian, without padding.

A string or vec is a pointer and a count, both u32; a record is a pointer to its fields, one after the other.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from aqua_compat.particles.engine.steps import Step
from aqua_compat.particles.errors import InterpreterFailed

OUTCOME_SIZE: Final = 8 + 4 * 8 + 3
"""Bytes of the record that a step gives."""

_PAIR: Final = struct.Struct("<II")
_PARAMETERS: Final = struct.Struct("<II II QIB II II QQQ?")
_ED25519: Final = 0
_MOST_STRINGS: Final = 65_536


class StepArguments:
    """The buffers of one step: four fields of its parameters, their record, then script, previous and incoming data
    and results. The interpreter frees them."""

    def __init__(self, step: Step, seed: bytes) -> None:
        self._step = step
        self._fields = (step.init_peer_id.encode(), step.current_peer_id.encode(), seed, step.particle_id.encode())
        self._data = (step.script.encode(), step.previous, step.incoming, step.results)

    def sizes(self) -> list[int]:
        """Bytes of each buffer."""
        return [*map(len, self._fields), _PARAMETERS.size, *map(len, self._data)]

    def write(self, memory: memoryview, places: Sequence[int]) -> None:
        """Writes each buffer to its place. Raises InterpreterFailed for places outside of the memory."""
        for place, content in zip(places, (*self._fields, self._record(places), *self._data), strict=True):
            if content:
                _check(memory, place, len(content))
                memory[place : place + len(content)] = content

    def _record(self, places: Sequence[int]) -> bytes:
        step, limits = self._step, self._step.limits
        init, current, seed, particle_id = zip(places, map(len, self._fields), strict=False)
        return _PARAMETERS.pack(
            *init,
            *current,
            step.timestamp,
            step.ttl,
            _ED25519,
            *seed,
            *particle_id,
            limits.script,
            limits.particle,
            limits.call_result,
            True,
        )


class OutcomeReader:
    """Reads a record's fields in their order. Raises InterpreterFailed for what points outside of the memory."""

    def __init__(self, memory: memoryview, place: int, size: int) -> None:
        """`size` of the whole record in bytes."""
        self._memory = memory
        self._fields = self._read(place, size)
        self._at = 0

    def i64(self) -> int:
        """A signed number."""
        [number] = struct.unpack_from("<q", self._take(8))
        return int(number)

    def blob(self) -> bytes:
        """A vec of bytes."""
        return self._read(*_PAIR.unpack(self._take(8)))

    def text(self) -> str:
        """A string."""
        return self.blob().decode(errors="replace")

    def texts(self) -> list[str]:
        """A vec of strings."""
        place, count = _PAIR.unpack(self._take(8))
        if count > _MOST_STRINGS:
            raise InterpreterFailed(f"a result of {count} strings")
        pairs = self._read(place, count * _PAIR.size)
        return [self._read(*pair).decode(errors="replace") for pair in _PAIR.iter_unpack(pairs)]

    def _take(self, size: int) -> bytes:
        field = self._fields[self._at : self._at + size]
        self._at += size
        return field

    def _read(self, place: int, size: int) -> bytes:
        _check(self._memory, place, size)
        return bytes(self._memory[place : place + size])


def _check(memory: memoryview, place: int, size: int) -> None:
    if place + size > len(memory):
        raise InterpreterFailed("the interpreter pointed outside of its memory")
