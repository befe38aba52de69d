"""One attack in a process of its own, for some seconds; in the end what it did, as JSON.

Usage: python -m tests.attacks.corpus ATTACK ADDRESS [--seconds 20] [--seed 0] [--rate 1]
"""

from __future__ import annotations

import argparse
import json
import os
import sys

import trio

from tests.attacks.corpus import ATTACKS, sustained
from tests.attacks.corpus.target import Target


async def main(attack: str, target: Target, seconds: float) -> None:
    """Attack for so long."""
    with trio.move_on_after(seconds):
        await sustained(ATTACKS[attack], target)
    print(json.dumps(target.done), flush=True)  # noqa: T201 - what whoever started it reads


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("attack", choices=ATTACKS)
    parser.add_argument("address")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=1.0)
    arguments = parser.parse_args()
    os.nice(15)  # whoever is attacked and those who use it come first on a machine that all share
    trio.run(
        main,
        arguments.attack,
        Target(arguments.address, seed=arguments.seed, rate=arguments.rate),
        arguments.seconds,
    )
    sys.stdout.flush()
    os._exit(0)
