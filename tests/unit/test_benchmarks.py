"""Benchmarks measure networks of any number of nodes, or CONTRIBUTING.md says that they have none; and they print what
an operation costs all nodes."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from benchmarks.network_sizes import take_network_sizes

_ROOT = Path(__file__).parents[2]

_WITHOUT_COSTS = {
    "checks_told": "changes come at a pace of their own, so that presence's share would be most; only delays are meant",
    "commands": "an operation is a process of its own, whose CPU is printed",
    "consul": "one node answers by what it keeps: its CPU for each is printed, as Consul's is",
    "dns_answers": "one node answers by what it keeps: its CPU for each is printed",
    "http_and_dns": "a table of the two above",
    "light_clients": "most clients do nothing: what each takes of its node's CPU and memory is printed",
    "liveness": "nobody asks for anything: the CPU of all nodes is printed, of a time",
    "many_watches": "the network is simulated: calls and CPU are counted in it and printed, of a second",
    "replication": "there are no clients' operations: messages, bytes and CPU are printed of a record",
}
"""Benchmarks of a network that don't print calls, bytes and CPU per operation, and why."""


def sources() -> dict[str, str]:
    """The text of each benchmark that is a command, by its name."""
    texts = {path.stem: path.read_text() for path in (_ROOT / "benchmarks").glob("*.py")}
    return {name: text for name, text in texts.items() if "__main__" in text}


def test_each_benchmark_takes_the_number_of_nodes_or_is_said_to_have_no_network() -> None:
    paragraph = next(
        part for part in (_ROOT / "CONTRIBUTING.md").read_text().split("\n\n") if part.startswith("Without a network")
    )
    without = {name for name, text in sources().items() if "take_network_sizes(" not in text}
    said = set(re.findall(r"`(\w+)`", paragraph)) & sources().keys()
    assert without == said


def test_each_benchmark_says_in_its_usage_that_it_takes_them() -> None:
    taking = {name: text for name, text in sources().items() if "take_network_sizes(" in text}
    silent = [name for name, text in taking.items() if not re.search(rf"benchmarks\.{name}.* \[--nodes \d", text)]
    assert silent == []


def test_each_benchmark_of_a_network_prints_what_an_operation_costs_all_nodes() -> None:
    taking = {name: text for name, text in sources().items() if "take_network_sizes(" in text}
    silent = {name for name, text in taking.items() if not re.search(r"\.(figures|costs)\(", text)}
    assert silent == _WITHOUT_COSTS.keys()


def test_one_number_of_nodes_or_several_are_taken() -> None:
    parser = argparse.ArgumentParser()
    take_network_sizes(parser, 8, 32, least=4)
    assert parser.parse_args([]).nodes == [8, 32]
    assert parser.parse_args(["--nodes", "5"]).nodes == [5]
    assert parser.parse_args(["--nodes", "4", "32", "64"]).nodes == [4, 32, 64]


def test_too_few_nodes_are_an_error_of_usage(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    take_network_sizes(parser, 8, least=4)
    with pytest.raises(SystemExit):
        parser.parse_args(["--nodes", "8", "3"])
    assert "take 4 or more" in capsys.readouterr().err
