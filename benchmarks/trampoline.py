"""Steps of the interpreter through the trampoline, and with each function of the interpreter called from Python.

    python -m benchmarks.trampoline

Needs the interpreter: `aqua-registry aqua install`. Both ways take turns, first while Python does nothing else, then
beside a thread that is busy in Python, as the Trio thread of a busy node is. The ratios are what to look at.
"""

from __future__ import annotations

import argparse
import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import wasmtime

from aqua_compat.particles.enabling import interpreter_folder
from aqua_compat.particles.engine.abi import OUTCOME_SIZE, OutcomeReader, StepArguments
from aqua_compat.particles.engine.installation import load_module
from aqua_compat.particles.engine.interpreter import Interpreter
from aqua_compat.particles.engine.steps import Step, StepLimits, build_results, parse_requests
from aqua_compat.particles.settings import AquaSettings
from overlay.identity import Identity

TICKS = 2**30
_BYTES = 1  # the type that is allocated


class Direct:
    """The interpreter without the trampoline: a crossing per buffer, and three more."""

    def __init__(self, module: wasmtime.Module, engine: wasmtime.Engine, seed: bytes) -> None:
        self._seed = seed
        self._store = wasmtime.Store(engine)
        self._store.set_epoch_deadline(TICKS)
        self._store.set_wasi(wasmtime.WasiConfig())
        linker = wasmtime.Linker(engine)
        linker.define_wasi()
        log_form = wasmtime.FuncType([wasmtime.ValType.i32()] * 4, [])
        linker.define_func("__marine_host_api_v3", "log_utf8_string", log_form, lambda *_: None)
        exports = linker.instantiate(self._store, module).exports(self._store)
        self._memory = cast("wasmtime.Memory", exports["memory"])
        for name in ("_initialize", "_start"):
            cast("wasmtime.Func", exports[name])(self._store)
        names = ("release_objects", "allocate", "invoke", "get_result_ptr")
        self._release, self._allocate, self._invoke, self._result = (
            cast("wasmtime.Func", exports[name]) for name in names
        )

    def run(self, step: Step) -> int:
        """Runs a step, and returns its code."""
        arguments = StepArguments(step, self._seed)
        sizes = arguments.sizes()
        self._release(self._store)
        places = [self._allocate(self._store, size, _BYTES) & 0xFFFF_FFFF if size else 0 for size in sizes]
        arguments.write(self._view(), places)
        pairs = [number for pair in zip(places[5:8], sizes[5:8], strict=True) for number in pair]
        self._invoke(self._store, *pairs, places[4], places[8], sizes[8])
        reader = OutcomeReader(self._view(), self._result(self._store) & 0xFFFF_FFFF, OUTCOME_SIZE)
        ret_code, _, _, _ = reader.i64(), reader.text(), reader.blob(), reader.texts()
        parse_requests(reader.blob(), step.limits.calls)
        return ret_code

    def _view(self) -> memoryview:
        return memoryview(self._memory.get_buffer_ptr(self._store)).cast("B")


def a_step(host: Identity) -> Step:
    """The first step of a script that makes one call."""
    return Step(
        script=f'(call "{host.peer_id}" ("op" "identity") ["text"] x)',
        previous=b"",
        incoming=b"",
        results=build_results({}),
        init_peer_id=host.peer_id,
        current_peer_id=host.peer_id,
        timestamp=int(time.time() * 1000),
        ttl=60_000,
        particle_id="benchmark",
        limits=StepLimits(script=2**20, particle=2**22, call_result=2**20, calls=2**22),
    )


@contextmanager
def busy_thread() -> Iterator[None]:
    """Another thread computes in Python while the block runs."""
    ended = threading.Event()

    def compute() -> None:
        while not ended.is_set():
            sum(range(200))

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def measure(trampoline: Interpreter, direct: Direct, step: Step, count: int) -> tuple[float, float]:
    """Median milliseconds of a step through the trampoline, and directly."""
    durations: tuple[list[float], list[float]] = ([], [])
    for _ in range(count):
        for which in (0, 1):
            before = time.perf_counter()
            ret_code = direct.run(step) if which else trampoline.run(step, TICKS).ret_code
            durations[which].append(time.perf_counter() - before)
            assert ret_code == 0
    through, directly = (sorted(one)[count // 2] * 1000 for one in durations)
    return through, directly


def main() -> None:
    """Measures, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, default=interpreter_folder(AquaSettings()), help="of the interpreter")
    parser.add_argument("--count", type=int, default=300, help="steps per figure")
    arguments = parser.parse_args()
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before")
    host = Identity.generate()
    module, engine = load_module(arguments.folder)
    trampoline = Interpreter(module, engine, host.seed, AquaSettings().max_memory)
    direct, step = Direct(module, engine, host.seed), a_step(host)
    measure(trampoline, direct, step, 20)  # warm
    through, directly = measure(trampoline, direct, step, arguments.count)
    print(f"step while Python is idle:     {through:6.2f} ms, directly {directly:6.2f} ms  {directly / through:.1f} x")
    with busy_thread():
        through, directly = measure(trampoline, direct, step, arguments.count // 4)
    print(f"step beside a busy thread:     {through:6.2f} ms, directly {directly:6.2f} ms  {directly / through:.1f} x")


if __name__ == "__main__":
    main()
