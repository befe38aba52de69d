"""What honest clients notice of each attack of the corpus, and what it takes of the node that is attacked.

Each attack gets a network of its own, whose nodes are processes. Two clients act through one of them: in peace, while
it is attacked, and in peace again. The lag is the node's worst in the last minute.

Usage: python -m tests.attacks.under_attack [ATTACK ...] [--seconds 20] [--nodes 3] [--rate 1] [--details]
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Final

import structlog
import trio

from benchmarks.processes import cpu_seconds, node_network, open_files, resident_megabytes
from tests.attacks.corpus import ATTACKS
from tests.attacks.honest import Latencies, honest_clients
from tests.attacks.running_attack import attacking

ROUNDS_PER_SECOND: Final = 8.0
WARMING_UP: Final = 4.0  # seconds
BEFORE_MEASURING: Final = 2.0  # seconds for an attack's process to start
MOST_TIMES: Final = 3.0  # what is promised: an honest client's p99 under attack, by what it is in peace
HEADING: Final = (
    f"{'attack':<24}{'p99 ms':>8}{'under':>8}{'times':>7}{'failed':>7}{'MiB':>7}{'files':>6}{'CPU':>6}{'lag ms':>7}"
)


async def measure(attack: str, seconds: float, nodes: int, rate: float, *, details: bool) -> bool:
    """Print the row of one attack; whether it keeps what is promised."""
    with tempfile.TemporaryDirectory() as folder:
        async with node_network(Path(folder), nodes) as network, honest_clients(network[0].address) as clients:
            node = network[0]
            assert node.process_id is not None
            async with trio.open_nursery() as nursery:
                nursery.start_soon(clients.work, ROUNDS_PER_SECOND)
                await trio.sleep(WARMING_UP)
                clients.take()
                await trio.sleep(seconds / 2)
                before = clients.take()
                memory, files = resident_megabytes(node.process_id), open_files(node.process_id)
                async with attacking(attack, node.address, seconds + BEFORE_MEASURING, seed=1, rate=rate) as running:
                    await trio.sleep(BEFORE_MEASURING)
                    clients.take()
                    cpu = cpu_seconds(node.process_id)
                    await trio.sleep(seconds)
                    under = clients.take()
                    cpu = cpu_seconds(node.process_id) - cpu
                    memory = resident_megabytes(node.process_id) - memory
                    files = open_files(node.process_id) - files
                    status = await clients.status()
                await trio.sleep(WARMING_UP)
                clients.take()
                await trio.sleep(seconds / 2)
                peace = Latencies.of([*before.durations, *clients.take().durations])
                nursery.cancel_scope.cancel()
            lag = status.overlay.loop_lag_max * 1000 if status is not None and status.overlay is not None else -1.0
            times = under.p99 / peace.p99
            print(
                f"{attack:<24}{peace.p99:>8.1f}{under.p99:>8.1f}{times:>7.1f}{under.failed:>7}"
                f"{memory:>+7.1f}{files:>+6}{cpu / seconds:>6.2f}{lag:>7.0f}",
                flush=True,
            )
            if details:
                print(
                    f"  p50 {peace.p50:.1f} ms, under attack {under.p50:.1f} ms ({len(under.durations)} done)",
                    flush=True,
                )
                print(f"  {running.done}", flush=True)
            return node.alive and under.failed == 0 and times <= MOST_TIMES and bool(running.done)


async def main(attacks: list[str], seconds: float, nodes: int, rate: float, *, details: bool) -> int:
    """Print the table; how many attacks broke what is promised."""
    print(f"load of this machine: {os.getloadavg()[0]:.1f} of {os.cpu_count()} cores\n{HEADING}", flush=True)
    broken = [name for name in attacks if not await measure(name, seconds, nodes, rate, details=details)]
    print(f"broken by: {', '.join(broken) or 'none'}", flush=True)
    return len(broken)


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", help=", ".join(ATTACKS))
    parser.add_argument("--seconds", type=float, default=20.0, help="in peace, and as long under attack")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--rate", type=float, default=1.0, help="by which the attacks' own rates are multiplied")
    parser.add_argument("--details", action="store_true", help="also p50, and what the attack did")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.attacks) - set(ATTACKS))
    if unknown:
        parser.error(f"no attack: {', '.join(unknown)}")
    names = arguments.attacks or list(ATTACKS)
    sys.exit(
        min(
            trio.run(
                lambda: main(names, arguments.seconds, arguments.nodes, arguments.rate, details=arguments.details)
            ),
            1,
        )
    )
