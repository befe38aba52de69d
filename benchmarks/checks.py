"""What the checks of an agent's services cost: `python -m benchmarks.checks [COUNT] [SECONDS]`.

COUNT (500) HTTP checks every 10 s of a server in a process of its own; prints this process's share of one core, the
start left out, and how late the loop was at worst.
"""

from __future__ import annotations

import sys
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection

import trio

from aqua_compat.agent.check_runner import CheckKey, CheckRunner
from aqua_compat.agent.check_state import CheckState
from aqua_compat.agent.definitions import CheckDefinition, CheckTiming, DefinedInstance, HttpCheck, ServiceDefinition
from registry.model.endpoints import Instance

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nok"


def _serve(tell: Connection) -> None:
    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            try:
                await stream.receive_some(65_536)
                await stream.send_all(ANSWER)
            except trio.BrokenResourceError:
                pass

    async def run() -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=1024)
        tell.send(listeners[0].socket.getsockname()[1])
        await trio.serve_listeners(answer, listeners)

    trio.run(run)


def _service(number: int, port: int) -> ServiceDefinition:
    probe = HttpCheck(url=f"http://127.0.0.1:{port}/health")
    check = CheckDefinition(name="http", probe=probe, timing=CheckTiming(interval=10.0))
    instance = DefinedInstance(instance=Instance(id="1"), checks=(check,))
    return ServiceDefinition(id=f"s{number}", label="s", owner="o", key_id="k", instances=(instance,))


async def _measure(count: int, seconds: float, port: int) -> None:
    runner = CheckRunner(lambda _key, _result: None)
    latest = 0.0
    async with trio.open_nursery() as nursery:
        await nursery.start(runner.run)
        runner.update([_service(number, port) for number in range(count)])
        await trio.sleep(3)
        used, began = time.process_time(), time.perf_counter()
        while time.perf_counter() - began < seconds:
            due = trio.current_time() + 0.05
            await trio.sleep_until(due)
            latest = max(latest, trio.current_time() - due)
        share = (time.process_time() - used) / (time.perf_counter() - began)
        passing = sum(
            result is not None and result.state is CheckState.PASSING
            for result in (runner.shown(CheckKey(f"s{number}", "1", "http")) for number in range(count))
        )
        nursery.cancel_scope.cancel()
    print(
        f"{count} checks at 10 s: {100 * share:.1f} % of a core, {passing} pass; the loop late by {latest * 1e3:.0f} ms"
    )


def main() -> None:
    """Measures, as the command line says."""
    count, seconds = int((sys.argv[1:2] or ["500"])[0]), float((sys.argv[2:3] or ["30"])[0])
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=_serve, args=(theirs,), daemon=True)
    server.start()
    try:
        trio.run(_measure, count, seconds, ours.recv())
    finally:
        server.terminate()


if __name__ == "__main__":
    main()
