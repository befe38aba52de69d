"""What the Containerfile makes: its steps are carried out as they stand, in a bare Debian for the base image."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from functools import partial
from pathlib import Path

import pytest
import trio
import yaml

from tests.end_to_end.container import TOOLS, Image, build, make_debian
from tests.end_to_end.network import Finished, eventually, first_line, launched, ran
from tests.paths import ROOT

CONTAINER = ROOT / "packaging" / "container"
COMPOSE = yaml.safe_load((CONTAINER / "compose.yaml").read_text())
DEBIAN = "trixie"  # what the base image is made of
PACKAGES = ("ca-certificates", "python-is-python3", "python3", "python3-venv")
SMALL = 200e6  # bytes of what the steps install
MISSING = [tool for tool in TOOLS if shutil.which(tool) is None]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a Debian's files as they are, and mounts in it")
@pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
async def test_the_containers_node_runs_without_rights_is_healthy_and_ends_cleanly(tmp_path: Path) -> None:
    image = await trio.to_thread.run_sync(_image, tmp_path)
    assert _size(image.root / "opt") < SMALL
    web = COMPOSE["services"]["web"]
    [config] = web["configs"]
    services = image.root / config["target"].lstrip("/")
    services.parent.mkdir()
    services.write_text(COMPOSE["configs"][config["source"]]["content"])
    volume = tmp_path / "volume"
    image.new_volume(volume)
    log = tmp_path / "node.log"
    async with launched(*image.run(volume), home=tmp_path, log=log) as engine:
        address = ""
        while (line := await first_line(engine)) != "ready":
            address = line
        assert f"/tcp/{image.port.removesuffix('/tcp')}/p2p/" in address
        node = _child_of(engine.pid)
        status = _status(node)
        assert set(status["Uid"].split()) == {image.user.partition(":")[0]} != {"0"}
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
        assert status["NSpid"].split()[-1] == "1"  # so that signals without a handler don't reach it

        async def inside(*command: str) -> Finished:
            return await ran(*image.execute(node, *command), home=tmp_path, fresh=True)

        healthy = await inside(*image.health_check)
        assert healthy.code == 0, healthy.err
        os.kill(node, signal.SIGSTOP)
        assert (await inside(*image.health_check)).code != 0
        os.kill(node, signal.SIGCONT)

        # A program beside it, as compose.yaml has one.
        program = image.execute(node, *image.entry_point, *web["command"])
        async with launched(*program, home=tmp_path, log=tmp_path / "program.log") as entered:
            resolving = partial(inside, "aqua-registry", "resolve", "web@me")
            shown = await eventually(resolving, lambda found: ":8080" in found.out, timeout=20)
            assert shown.code == 0
            os.kill(_child_of(entered.pid), signal.SIGTERM)
            with trio.fail_after(20):
                await entered.wait()
        assert (await inside("aqua-registry", "resolve", "web@me", "--all")).out == "no services\n"

        os.kill(node, signal.Signals[image.stop_signal])
        with trio.fail_after(float(COMPOSE["x-node"]["stop_grace_period"].removesuffix("s"))):
            assert await engine.wait() == 0
    for written in log.read_text().splitlines():
        assert json.loads(written)["level"] not in ("warning", "error"), written


def _image(folder: Path) -> Image:
    archive = folder / "debian.tar"
    make_debian(DEBIAN, PACKAGES, archive)

    def base(name: str) -> Path:
        assert re.fullmatch(r"python:3\.13-slim", name), f"another base image than what {DEBIAN} has"
        return archive

    return build(CONTAINER / "Containerfile", ROOT, folder, base)


def _size(folder: Path) -> int:
    counted = subprocess.run(["du", "-s", "--block-size=1", str(folder)], capture_output=True, text=True, check=True)
    return int(counted.stdout.split()[0])


def _status(process_id: int) -> dict[str, str]:
    text = Path(f"/proc/{process_id}/status").read_text()
    return dict(re.findall(r"^(\w+):\s+(.*)$", text, re.MULTILINE))


def _child_of(process_id: int) -> int:
    """Of unshare and nsenter: what they started, by its number outside of its namespace."""
    [child] = Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()
    return int(child)
