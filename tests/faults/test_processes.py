"""Nodes whose process is ill off: no room for logs, no terminal, no memory, told to end before they began."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import psutil
import pytest
import trio

from tests.end_to_end.network import command, environment_of, eventually, first_line, launched

# ruff: noqa: ASYNC230, ASYNC240 - /dev and /proc are no disks

NODE = (sys.executable, "-m", "aqua_compat", "node", "--data-dir")


@asynccontextmanager
async def started(*arguments: str, home: Path, **options: object) -> AsyncIterator[trio.Process]:
    """A process of its own, with what nobody forks: limits, closed descriptors."""
    process = await trio.lowlevel.open_process(list(arguments), env=environment_of(home), **options)  # type: ignore[arg-type]
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


async def ended(process: trio.Process) -> int:
    with trio.fail_after(30):
        return await process.wait()


@pytest.mark.parametrize("full", ["stdout", "stderr"])
async def test_a_node_goes_on_when_what_it_prints_or_logs_to_is_full(full: str, tmp_path: Path) -> None:
    folder, other = tmp_path / "node", "stderr" if full == "stdout" else "stdout"
    with Path("/dev/full").open("wb") as nowhere:
        streams = {full: nowhere, other: subprocess.PIPE, "stdin": subprocess.DEVNULL}
        async with started(*NODE, str(folder), home=tmp_path, **streams) as process:
            told = process.stdout or process.stderr
            assert told is not None
            said = b""
            with trio.fail_after(60):
                while b"ready" not in said:
                    piece = await told.receive_some(4096)
                    assert piece, said
                    said += piece
            process.send_signal(signal.SIGTERM)
            async for piece in told:
                said += piece
            assert await ended(process) == 0
    if full == "stdout":
        assert b"can't be printed" in said
        assert b"Traceback" not in said


async def test_a_node_without_any_stream_keeps_them_off_its_files(tmp_path: Path) -> None:
    script = f'exec "{sys.executable}" -m aqua_compat node --data-dir "{tmp_path}/node" <&- >&- 2>&-'
    async with started("/bin/sh", "-c", script, home=tmp_path) as process:
        database = str(tmp_path / "node" / "registry.sqlite")

        async def opened() -> dict[int, str]:
            await trio.lowlevel.checkpoint()
            found: dict[int, str] = {}
            for entry in Path(f"/proc/{process.pid}/fd").iterdir():
                with suppress(FileNotFoundError):  # closed meanwhile
                    found[int(entry.name)] = os.readlink(entry)
            return found

        found = await eventually(opened, lambda files: database in files.values(), timeout=60)
        assert [found[number] for number in range(3)] == ["/dev/null"] * 3
        process.send_signal(signal.SIGTERM)
        assert await ended(process) == 0


async def test_a_node_whose_terminal_closes_says_so_and_ends_cleanly_but_under_nohup_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "log"
    terminal, other_end = os.openpty()
    with log.open("wb") as stderr:
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": stderr}
        begin = partial(heeding, os.ttyname(other_end))
        async with started(*NODE, str(tmp_path / "node"), home=tmp_path, preexec_fn=begin, **streams) as process:
            while await first_line(process) != "ready":
                pass
            os.close(other_end)
            os.close(terminal)
            assert await ended(process) == 0
    assert "signal=SIGHUP" in log.read_text()

    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    async with started("nohup", *NODE, str(tmp_path / "other"), home=tmp_path, **streams) as process:
        while await first_line(process) != "ready":
            pass
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert await ended(process) == 0


@pytest.mark.parametrize("has_terminal", [True, False])
async def test_a_node_with_services_or_without_a_terminal_reads_again_on_sighup(
    tmp_path: Path, has_terminal: bool
) -> None:
    log = tmp_path / "log"
    terminal, other_end = os.openpty()
    begin = partial(heeding, os.ttyname(other_end) if has_terminal else None)
    with log.open("wb") as stderr:
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": stderr}
        async with started(*NODE, str(tmp_path / "node"), home=tmp_path, preexec_fn=begin, **streams) as process:
            while await first_line(process) != "ready":
                pass
            if has_terminal:
                body = b'{"Name": "web", "Port": 80}'
                head = "PUT /v1/agent/service/register HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json"
                async with await trio.open_unix_socket(str(tmp_path / "node" / "http.sock")) as client:
                    await client.send_all(f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
                    assert b" 200 " in bytes(await client.receive_some())

            async def times() -> int:
                await trio.lowlevel.checkpoint()
                return log.read_text().count("services were read again")

            before = await times()
            process.send_signal(signal.SIGHUP)
            await eventually(times, lambda count: count > before, timeout=30)
            process.send_signal(signal.SIGTERM)
            assert await ended(process) == 0
    os.close(terminal)
    os.close(other_end)
    assert "signal=SIGTERM" in log.read_text()


def heeding(terminal: str | None) -> None:
    """Begins a session, of this terminal if one is given, in which SIGHUP counts, also where tests run under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.setsid()
    if terminal is not None:
        os.open(terminal, os.O_RDWR)


async def is_heeding(process_id: int) -> bool:
    """Whether a process has taken SIGTERM and SIGHUP: from then on no signal kills it as if it had crashed."""
    await trio.lowlevel.checkpoint()
    caught = int(Path(f"/proc/{process_id}/status").read_text().split("SigCgt:")[1].split()[0], 16)
    return all(caught >> (number - 1) & 1 for number in (signal.SIGTERM, signal.SIGHUP))


async def test_a_node_that_is_told_to_end_while_it_starts_ends_cleanly(tmp_path: Path) -> None:
    """However far it came: the signal comes as soon as Python has the first of our modules open."""
    for number in range(4):
        async with started(*NODE, str(tmp_path / str(number)), home=tmp_path, stdout=subprocess.DEVNULL) as process:
            await eventually(partial(is_heeding, process.pid), bool, timeout=60)
            await trio.sleep(0.15 * number)  # nothing tells how far it is
            process.send_signal(signal.SIGTERM)
            assert await ended(process) == 0


@pytest.mark.parametrize("has_terminal", [True, False])
async def test_a_hangup_while_a_node_starts_means_what_it_means_later(tmp_path: Path, has_terminal: bool) -> None:
    log = tmp_path / "log"
    terminal, other_end = os.openpty()
    begin = partial(heeding, os.ttyname(other_end) if has_terminal else None)
    with log.open("wb") as stderr:
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": stderr}
        async with started(*NODE, str(tmp_path / "node"), home=tmp_path, preexec_fn=begin, **streams) as process:
            await eventually(partial(is_heeding, process.pid), bool, timeout=60)
            process.send_signal(signal.SIGHUP)
            if not has_terminal:
                while await first_line(process) != "ready":
                    pass
                process.send_signal(signal.SIGTERM)
            assert await ended(process) == 0
    os.close(terminal)
    os.close(other_end)
    assert f"signal={'SIGHUP' if has_terminal else 'SIGTERM'}" in log.read_text()


def test_signals_are_heeded_before_what_takes_long_is_imported() -> None:
    show = "import sys, aqua_compat.cli.start; print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", show], capture_output=True, check=True, text=True)
    assert not {"click", "trio", "msgspec"} & set(shown.stdout.split())


@pytest.mark.parametrize("megabytes", [80, 110, 125])
async def test_without_memory_a_node_ends_with_one_line(megabytes: int, tmp_path: Path) -> None:
    limit = megabytes * 2**20
    with trio.fail_after(60):
        process = await trio.run_process(
            [*NODE, str(tmp_path / "node")],
            env=environment_of(tmp_path),
            capture_stderr=True,
            check=False,
            preexec_fn=partial(resource.setrlimit, resource.RLIMIT_AS, (limit, limit)),
        )
    lines = process.stderr.decode().splitlines()
    assert process.returncode == 1, lines
    assert lines[-1] == "error: this process has no memory left; give it more, or lower what it may keep"


async def test_output_that_cant_be_written_is_an_error_on_one_line(tmp_path: Path) -> None:
    await command("key", "new", home=tmp_path)
    with Path("/dev/full").open("wb") as full:
        process = await trio.run_process(
            [sys.executable, "-m", "aqua_compat", "key", "show"],
            env=environment_of(tmp_path),
            stdout=full,
            capture_stderr=True,
            check=False,
        )
    assert process.returncode == 1
    assert process.stderr == b"error: can't write the output: No space left on device\n"


async def test_the_demos_nodes_end_with_the_demo_however_it_ends(tmp_path: Path) -> None:
    async with launched(
        *(sys.executable, "-m", "aqua_compat", "demo"), home=tmp_path, log=tmp_path / "log", TMPDIR=str(tmp_path)
    ) as process:

        async def nodes() -> list[psutil.Process]:
            await trio.lowlevel.checkpoint()
            return [each for each in psutil.process_iter(["cmdline"]) if str(tmp_path) in str(each.info["cmdline"])]

        await eventually(nodes, lambda running: len(running) >= 3, timeout=60)
        process.kill()
        await eventually(nodes, lambda running: not running, timeout=60)


async def test_a_nodes_database_is_verified_while_it_runs(tmp_path: Path) -> None:
    async with launched(*NODE, str(tmp_path / "node"), home=tmp_path, log=tmp_path / "log") as process:
        address = await first_line(process)
        created = await command("resource", "create", "checked", "--relay", address, home=tmp_path)
        assert created.code == 0
        checked = await command("data", "check", str(tmp_path / "node"), home=tmp_path)
        assert (checked.code, checked.err) == (0, "")
        assert "1 keys, 0 records" in checked.out
        process.send_signal(signal.SIGTERM)  # writes its journal back
        with trio.fail_after(30):
            await process.wait()
    with (tmp_path / "node" / "registry.sqlite").open("r+b") as file:
        file.seek(5 * 4096)
        file.write(bytes(3 * 4096))
    checked = await command("data", "check", str(tmp_path / "node"), home=tmp_path)
    assert (checked.code, "restore a copy" in checked.err) == (1, True)
    refused = await command("node", "--data-dir", str(tmp_path / "node"), home=tmp_path)
    assert refused.code == 1
    assert "is damaged" in refused.err
    assert refused.err.count("\n") == 1
