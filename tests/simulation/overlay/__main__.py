"""What finding the nearest costs as the network grows, beside what it should cost.

`python -m tests.simulation.overlay [--nodes 10 32 64 100 1000 10000] [--lookups 200] [--seed 1]`
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence
from typing import Final

from overlay.discovery.keyspace import POSITION_BITS
from tests.simulation.overlay.overlay import Lookup, Overlay

K: Final = 20

FEW: Final = 1_000
"""Nodes from which on parts of the network are made hostile: in smaller ones nearly everybody knows nearly all."""

HOSTILE: Final = ({"dead": 0.2, "silent": 0.05}, {"lying": 0.1}, {"lying": 0.2})

AIMS: Final = {
    10: "all     | 0   / 0   | 0    | 0",
    32: "all     | 0   / 0   | 0    | 0",
    64: "63      | 2   / 2   | 8    | 0",
    100: "53 / 54 | 0.5 / 1.0 | 3.9  | 0",
    1_000: "59 / 77 | 1.7 / 3.0 | 13.9 | 0",
    10_000: "70 / 95 | 2.7 / 4.5 | 21.4 | 0",
}
"""Links mean / p99, round trips of a cold lookup (first answer / all paths), messages, new links."""


def percentile(values: Sequence[float], part: float) -> float:
    """The value below which that part of `values` lies."""
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def recall(overlay: Overlay, lookups: Sequence[tuple[int, Lookup]]) -> float:
    """Of the members that are truly nearest, the part that was found."""
    parts = []
    for target, lookup in lookups:
        expected = overlay.nearest(target, K)
        parts.append(len({*expected} & {*lookup.names}) / len(expected))
    return sum(parts) / len(parts)


def row(nodes: int, count: int, seed: int) -> str:
    """One line of the table."""
    began = time.monotonic()
    overlay, randomness = Overlay(nodes, seed), random.Random(seed)
    links = [len(member.links) for member in overlay.members.values()]
    lookups = []
    for _ in range(count):
        target = randomness.getrandbits(POSITION_BITS)
        lookups.append((target, overlay.recursive(randomness.choice(overlay.live), target, K)))
    first = [lookup.first for _, lookup in lookups]
    last = [lookup.last for _, lookup in lookups]
    messages = [lookup.messages for _, lookup in lookups]
    new_links = sum(lookup.new_links for _, lookup in lookups)
    return (
        f"{nodes:>7} | {sum(links) / nodes:5.1f} / {percentile(links, 0.99):3.0f} | "
        f"{sum(first) / count:4.1f} / {sum(last) / count:4.1f} ({percentile(first, 0.99):.0f} / "
        f"{percentile(last, 0.99):.0f}) | {sum(messages) / count:5.1f} ({percentile(messages, 0.99):.0f}) | "
        f"{new_links / count:9.1f} | {recall(overlay, lookups):6.4f} | {AIMS.get(nodes, '')} | "
        f"{time.monotonic() - began:.1f} s"
    )


def hostile_row(nodes: int, count: int, seed: int, **parts: float) -> str:
    """One line about a network of which parts are dead, silent or lying: who finds all, first and with the fallback."""
    overlay, randomness = Overlay(nodes, seed, **parts), random.Random(seed)
    found_first = found = fell_back = 0
    for _ in range(count):
        target, own = randomness.getrandbits(POSITION_BITS), randomness.choice(overlay.honest)
        expected = {*overlay.nearest(target, K)}
        lookup = overlay.recursive(own, target, K)
        found_first += expected <= {*lookup.names}
        if not overlay.is_believable(lookup, target, K):
            fell_back += 1
            lookup = overlay.iterative(own, target, K)
        found += expected - overlay.silent_names <= {*lookup.names}
    kind = ", ".join(f"{part:.0%} {name}" for name, part in parts.items())
    return (
        f"{nodes:>7} | {kind:<24} | found all by routes {found_first / count:6.1%}, with the fallback "
        f"{found / count:6.1%} (aim 100 %), fell back {fell_back / count:6.1%}"
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.overlay", description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[10, 32, 64, 100, 1_000, 10_000])
    parser.add_argument("--lookups", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print("  nodes | links / p99 | round trips, first / all (p99) | messages (p99) | new links | recall | aims | took")
    for nodes in options.nodes:
        print(row(nodes, options.lookups, options.seed), flush=True)
    for nodes in options.nodes:
        if nodes >= FEW:
            for parts in HOSTILE:
                print(hostile_row(nodes, options.lookups, options.seed, **parts), flush=True)


if __name__ == "__main__":
    main()
