"""How soon the dead are off the list, and how often the living are, in a simulated network of the real step machines.

`python -m tests.simulation.presence [SCENARIO ...] [--nodes 400] [--seed 1] [--scale 1.0] [--tries 1000]`

`--tries`: of `lie2`, `lie5`, `oneway1` and `oneway2`, as many runs, each with the next seed, as it takes for so many
hosts that are lied about, or cut off from witnesses.
"""

from __future__ import annotations

import argparse
import time

from tests.simulation.presence.scenarios import SCENARIOS, Row, percentiles, together


def line(row: Row, took: float) -> str:
    """One line of the table."""
    hidden = percentiles(row.hidden) + (f", never {row.never}" if row.never else "")
    again = percentiles(row.again)
    cost = f"{row.messages:.2f} messages/s, {row.core:.3%}, {row.words} words"
    note = f"; {row.note}" if row.note else ""
    note += f"; {row.tries} tries" if row.tries else ""
    stuck = f", stuck {row.stuck}" if row.stuck else ""
    return f"| {row.fault:<36} | {hidden:<20} | {again:<20} | {row.live_hidden}{stuck} | {cost}{note} | {took:.0f} s"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.presence", description=__doc__)
    parser.add_argument("scenarios", nargs="*", choices=[*SCENARIOS, []], default=[])
    parser.add_argument("--nodes", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0, help="part of the whole time that is simulated")
    parser.add_argument("--tries", type=int, default=0, help="run a scenario that counts tries until it had so many")
    options = parser.parse_args()
    print("| fault | hidden p50 / p99 / max | listed again | live hidden | cost | took")
    for name in options.scenarios or SCENARIOS:
        began = time.monotonic()
        rows = [SCENARIOS[name](options.nodes, options.seed, options.scale)]
        while 0 < (row := together(rows)).tries < options.tries:
            rows.append(SCENARIOS[name](options.nodes, options.seed + len(rows), options.scale))
        print(line(row, time.monotonic() - began), flush=True)


if __name__ == "__main__":
    main()
