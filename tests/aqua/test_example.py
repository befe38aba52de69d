"""examples/aqua runs as its README says."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import trio

from aqua_compat import connect
from tests.aqua.nodes import AquaNetwork, websocket
from tests.aqua.npm import EXAMPLE, PROJECT, Tools, example
from tests.aqua.test_scenarios import SETTLED
from tests.end_to_end.network import environment_of, eventually, first_line, launched

pytestmark = pytest.mark.timeout(300)  # the first test also installs


async def test_greeters_are_found_called_and_gone_after_they_stopped(
    network: AquaNetwork, js_tools: Tools, tmp_path: Path
) -> None:
    one, two = websocket(network.nodes[0]), websocket(network.nodes[1])
    folder = example(js_tools.node)
    log = tmp_path / "log"
    provider = (str(js_tools.node), str(folder / "provider.mjs"))
    async with launched(*provider, one, "Good morning", home=tmp_path, log=log) as first:
        resource_id = await first_line(first)
        async with launched(*provider, two, "Hi", resource_id, home=tmp_path, log=log) as second:
            assert await first_line(second) == resource_id

            async def call() -> list[str]:
                done = await trio.run_process(
                    [str(js_tools.node), str(folder / "caller.mjs"), one, resource_id, "Ada", "2"],
                    env=environment_of(tmp_path),
                    capture_stdout=True,
                )
                return sorted(done.stdout.decode().splitlines())

            assert await eventually(call, lambda said: len(said) == 2, 60) == ["Good morning, Ada", "Hi, Ada"]
            for process in (first, second):
                process.send_signal(signal.SIGTERM)
                with trio.fail_after(20):
                    assert await process.wait() == 0, log.read_text()
    async with connect(network.nodes[2].address) as aqua:

        async def left() -> int:
            records, errors = await aqua.resolveResource(resource_id, 1)
            assert records is not None, errors
            return len(records)

        await eventually(left, lambda count: count == 0, SETTLED)


def test_npm_ci_installs_what_the_tests_have_installed() -> None:
    """So that they needn't install it again: its lock file has what its package file wants, in the same versions."""
    locked, of_tests = (json.loads((of / "package-lock.json").read_text())["packages"] for of in (EXAMPLE, PROJECT))
    package = json.loads((EXAMPLE / "package.json").read_text())
    for kind in ("dependencies", "devDependencies", "engines"):
        assert locked[""][kind] == package[kind]
    for name, of_example in locked.items():
        if name:
            assert (of_example["version"], of_example["integrity"]) == (
                of_tests[name]["version"],
                of_tests[name]["integrity"],
            ), name


def test_the_commands_are_those_of_the_readme() -> None:
    readme = (EXAMPLE / "README.md").read_text()
    for line in (
        "npm ci\n",
        "npm run compile\n",
        'node provider.mjs ADDRESS_OF_ONE "Good morning" ',
        'node provider.mjs ADDRESS_OF_TWO "Hi" RESOURCE_ID ',
        "node caller.mjs ADDRESS_OF_ONE RESOURCE_ID Ada 2 ",
    ):
        assert line in readme
