"""The original JS client in a process of its own, told what to do."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import trio

from tests.aqua.npm import PROJECT, Tools

START = 30.0  # seconds
TTL = 12.0  # seconds that a particle lives


class CallFailed(Exception):
    """What the client rejected a call with."""


class PeerGone(Exception):
    """The process ended."""


class JsPeer:
    """A running peer.mjs. `called`: the names that its greeter was called with; `heard`: the greetings it heard."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.peer_id = ""
        self._called, self.called = trio.open_memory_channel[str](math.inf)
        self._heard, self.heard = trio.open_memory_channel[str](math.inf)
        self._ready = trio.Event()
        self._numbers = count(1)
        self._writing = trio.Lock()
        self._waiting: dict[int, trio.MemorySendChannel[dict[str, Any]]] = {}

    async def call(self, function: str, *arguments: object, ttl: float = TTL) -> Any:
        """A compiled function's result; raises CallFailed, PeerGone."""
        return await self._ask(call=function, args=arguments, ttl=int(ttl * 1000))

    async def serve(self, service_id: str, greeting: str | None) -> None:
        """Serve a greeter that answers with a greeting, or never."""
        await self._ask(**{"serve": service_id, "as": greeting})

    async def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        await self.process.wait()

    async def _ask(self, **command: object) -> Any:
        assert self.process.stdin is not None
        number = next(self._numbers)
        sender, receiver = trio.open_memory_channel[dict[str, Any]](1)
        self._waiting[number] = sender
        try:
            line = json.dumps({"id": number, **command}).encode() + b"\n"
            async with self._writing:
                await self.process.stdin.send_all(line)
            answer = await receiver.receive()
        except (trio.EndOfChannel, trio.BrokenResourceError):
            raise PeerGone from None
        finally:
            self._waiting.pop(number, None)
        if "error" in answer:
            raise CallFailed(answer["error"])
        return answer["result"]

    async def read(self) -> None:
        """Take in what the process says until it ends."""
        assert self.process.stdout is not None
        received = b""
        async for piece in self.process.stdout:
            *lines, received = (received + piece).split(b"\n")
            for line in lines:
                self._take(line)
        for sender in self._waiting.values():
            sender.close()

    async def ready(self) -> None:
        with trio.fail_after(START):
            await self._ready.wait()

    def _take(self, line: bytes) -> None:
        try:
            said = json.loads(line)
        except ValueError:
            print(line.decode(errors="replace"))  # noqa: T201 - the client's own words, shown beside a failure
            return
        if "peer_id" in said:
            self.peer_id = said["peer_id"]
            self._ready.set()
        elif "called" in said:
            self._called.send_nowait(said["called"])
        elif "heard" in said:
            self._heard.send_nowait(said["heard"])
        elif (sender := self._waiting.get(said["id"])) is not None:
            sender.send_nowait(said)


@asynccontextmanager
async def js_peer(tools: Tools, relay: str) -> AsyncIterator[JsPeer]:
    """A client of the node at `relay`, a WebSocket multiaddr; killed in the end."""
    command = [str(tools.node), "--no-deprecation", "peer.mjs", str(tools.compiled), relay]
    process = await trio.lowlevel.open_process(
        command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=None
    )
    peer = JsPeer(process)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.read)
            await peer.ready()
            yield peer
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await peer.kill()
