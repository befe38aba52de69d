"""How many nodes the networks of a benchmark have: `--nodes 8 32` measures one of 8, then one of 32."""

from __future__ import annotations

import argparse


def take_network_sizes(
    parser: argparse.ArgumentParser, *default: int, least: int = 1, what: str = "node processes"
) -> None:
    """Have a benchmark take `--nodes`, one number or several. Fewer than `least` are an error of usage; `what` they are
    is for the help."""

    def size(text: str) -> int:
        nodes = int(text)
        if nodes < least:
            raise argparse.ArgumentTypeError(f"{nodes} are too few, take {least} or more")
        return nodes

    help_ = f"{what}, a network for each number; {least} at least [{' '.join(map(str, default))}]"
    parser.add_argument("--nodes", type=size, nargs="+", default=list(default), metavar="N", help=help_)
