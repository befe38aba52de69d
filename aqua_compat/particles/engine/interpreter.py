"""One instance of the interpreter: runs steps, one at a time, in whatever thread calls it.

A step crosses into the library as rarely as can be: `trampoline` makes many calls of the interpreter in one.
"""

from __future__ import annotations

import struct
from typing import Final, cast

import wasmtime

from aqua_compat.particles.engine.abi import OUTCOME_SIZE, OutcomeReader, StepArguments
from aqua_compat.particles.engine.steps import Outcome, Step, parse_requests
from aqua_compat.particles.engine.trampoline import TRAMPOLINE, TRAMPOLINE_PLACES, TRAMPOLINE_RESULT, TRAMPOLINE_SIZES
from aqua_compat.particles.errors import InterpreterFailed, StepInterrupted

_TICKS_AHEAD: Final = 2**40  # no step is this long


def make_engine() -> wasmtime.Engine:
    """An engine whose code can be interrupted. A compiled module fits only engines with the same settings."""
    config = wasmtime.Config()
    config.epoch_interruption = True
    return wasmtime.Engine(config)


class Interpreter:
    """Not for two threads at a time, and not to be used any more after `InterpreterFailed`."""

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
            instance = linker.instantiate(self._store, module)
            exports = instance.exports(self._store)
            for name in ("_initialize", "_start"):
                cast("wasmtime.Func", exports[name])(self._store)
            linker.define_instance(self._store, "avm", instance)
            trampoline = linker.instantiate(self._store, wasmtime.Module(engine, TRAMPOLINE)).exports(self._store)
            self._memory = cast("wasmtime.Memory", exports["memory"])
            self._prepare, self._invoke = (cast("wasmtime.Func", trampoline[name]) for name in ("prepare", "invoke"))
            self._frame = _view(self._store, cast("wasmtime.Memory", trampoline["frame"]))  # it never grows, nor moves
        except (wasmtime.WasmtimeError, wasmtime.Trap, KeyError) as error:
            raise InterpreterFailed(f"the interpreter can't be started: {str(error)[:300]}") from error

    @property
    def memory_bytes(self) -> int:
        """Bytes that the instance holds; they only grow."""
        return self._memory.data_len(self._store)

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
        arguments = StepArguments(step, self._seed)
        struct.pack_into(TRAMPOLINE_SIZES, self._frame, 0, *arguments.sizes())
        self._prepare(self._store)
        places = struct.unpack_from(TRAMPOLINE_SIZES, self._frame, TRAMPOLINE_PLACES)
        arguments.write(_view(self._store, self._memory), places)
        self._invoke(self._store)
        [result] = struct.unpack_from("<I", self._frame, TRAMPOLINE_RESULT)
        reader = OutcomeReader(_view(self._store, self._memory), result, OUTCOME_SIZE)
        ret_code, error, data, next_peers = reader.i64(), reader.text(), reader.blob(), reader.texts()
        calls = reader.blob()
        return Outcome(
            ret_code=ret_code,
            error=error,
            data=data,
            next_peers=next_peers,
            calls=parse_requests(calls, step.limits.calls),
            calls_size=len(calls),
        )


def _view(store: wasmtime.Store, memory: wasmtime.Memory) -> memoryview:
    """The memory as it is until the instance runs again: then it may have grown and moved."""
    return memoryview(memory.get_buffer_ptr(store)).cast("B")


def _ignore_log(level: int, target: int, place: int, length: int) -> None:
    """What the interpreter logs of scripts is nothing that an operator could act on."""


def _failure(error: Exception) -> InterpreterFailed:
    if isinstance(error, wasmtime.Trap) and error.trap_code == wasmtime.TrapCode.INTERRUPT:
        return StepInterrupted("a step took too long")
    return InterpreterFailed(
        f"a step failed: {str(error).splitlines()[0][:200] if str(error) else type(error).__name__}"
    )
