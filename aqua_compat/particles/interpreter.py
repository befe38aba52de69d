"""One instance of the interpreter: runs steps, one at a time, in whatever thread calls it."""

from __future__ import annotations

import ctypes
import struct
from typing import Any, Final, cast

import wasmtime

from aqua_compat.particles.errors import InterpreterFailed, StepInterrupted
from aqua_compat.particles.layout import Reader, Writer
from aqua_compat.particles.steps import Outcome, Step, parse_requests

_BYTES: Final = 1  # the type of an allocation
_OUTCOME_SIZE: Final = 8 + 4 * 8 + 3
_ED25519: Final = 0
_TICKS_AHEAD: Final = 2**40  # no step is this long


def make_engine() -> wasmtime.Engine:
    """The settings are a part of what a compiled module fits to."""
    config = wasmtime.Config()
    config.epoch_interruption = True
    return wasmtime.Engine(config)


class Interpreter:
    """Not for two threads at a time. After `InterpreterFailed` it is of no use."""

    def __init__(self, module: wasmtime.Module, engine: wasmtime.Engine, seed: bytes, max_memory: int) -> None:
        """`seed`: the host's Ed25519 seed, with which the interpreter signs what happened here. `max_memory`: bytes.

        Raises InterpreterFailed when the module isn't the interpreter.
        """
        self._seed = seed
        self._store = wasmtime.Store(engine)
        self._store.set_limits(memory_size=max_memory)
        self._store.set_epoch_deadline(_TICKS_AHEAD)
        self._store.set_wasi(wasmtime.WasiConfig())
        linker = wasmtime.Linker(engine)
        linker.define_wasi()
        log_form = wasmtime.FuncType([wasmtime.ValType.i32()] * 4, [])
        linker.define_func("__marine_host_api_v3", "log_utf8_string", log_form, _ignore_log)
        try:
            exports = linker.instantiate(self._store, module).exports(self._store)
            self._memory = _InstanceMemory(self._store, cast("wasmtime.Memory", exports["memory"]))
            self._exports = {name: cast("wasmtime.Func", exports[name]) for name in _FUNCTIONS}
            self._call("_initialize")
            self._call("_start")
        except (wasmtime.WasmtimeError, wasmtime.Trap, KeyError) as error:
            raise InterpreterFailed(f"the interpreter can't be started: {str(error)[:300]}") from error

    @property
    def memory_bytes(self) -> int:
        """Bytes that the instance holds; they only grow."""
        return self._memory.size

    def run(self, step: Step, max_ticks: int) -> Outcome:
        """One step, interrupted when the engine's epoch has advanced `max_ticks` times.

        Raises InterpreterFailed.
        """
        self._store.set_epoch_deadline(max_ticks)
        try:
            return self._run(step)
        except (wasmtime.WasmtimeError, wasmtime.Trap, ValueError, struct.error) as error:
            raise _failure(error) from error

    def _run(self, step: Step) -> Outcome:
        writer = Writer(self._memory, self._allocate)
        parameters = writer.record(
            writer.text(step.init_peer_id),
            writer.text(step.current_peer_id),
            struct.pack("<QIB", step.timestamp, step.ttl, _ED25519),
            writer.vec(self._seed),
            writer.text(step.particle_id),
            struct.pack("<QQQ?", step.limits.script, step.limits.particle, step.limits.call_result, True),
        )
        self._call(
            "invoke",
            *writer.blob(step.script.encode()),
            *writer.blob(step.previous),
            *writer.blob(step.incoming),
            parameters,
            *writer.blob(step.results),
        )
        reader = Reader(self._memory, _unsigned(self._call("get_result_ptr")), _OUTCOME_SIZE)
        ret_code, error, data, next_peers = reader.i64(), reader.text(), reader.blob(), reader.texts()
        calls = reader.blob()
        self._call("release_objects")
        return Outcome(
            ret_code=ret_code,
            error=error,
            data=data,
            next_peers=next_peers,
            calls=parse_requests(calls, step.limits.calls),
            calls_size=len(calls),
        )

    def _allocate(self, size: int) -> int:
        return _unsigned(self._call("allocate", size, _BYTES))

    def _call(self, name: str, *arguments: int) -> Any:
        return self._exports[name](self._store, *arguments)


_FUNCTIONS: Final = ("_initialize", "_start", "invoke", "allocate", "get_result_ptr", "release_objects")


class _InstanceMemory:
    def __init__(self, store: wasmtime.Store, memory: wasmtime.Memory) -> None:
        self._store = store
        self._memory = memory

    @property
    def size(self) -> int:
        return self._memory.data_len(self._store)

    def read(self, start: int, size: int) -> bytes:
        return ctypes.string_at(self._place(start, size), size)

    def write(self, start: int, payload: bytes) -> None:
        ctypes.memmove(self._place(start, len(payload)), payload, len(payload))

    def _place(self, start: int, size: int) -> int:
        # A pointer of a moment: memory moves when it grows.
        if start < 0 or size < 0 or start + size > self._memory.data_len(self._store):
            raise InterpreterFailed("the interpreter pointed outside of its memory")
        base = ctypes.addressof(self._memory.data_ptr(self._store).contents)
        return base + start


def _ignore_log(level: int, target: int, place: int, length: int) -> None:
    """What the interpreter logs of scripts is nothing that an operator could act on."""


def _unsigned(number: int) -> int:
    return number & 0xFFFF_FFFF


def _failure(error: Exception) -> InterpreterFailed:
    if isinstance(error, wasmtime.Trap) and error.trap_code == wasmtime.TrapCode.INTERRUPT:
        return StepInterrupted("a step took too long")
    return InterpreterFailed(
        f"a step failed: {str(error).splitlines()[0][:200] if str(error) else type(error).__name__}"
    )
