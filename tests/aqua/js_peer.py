"""Original JS clients, several in one process, told what to do.

Starting Node and importing the client takes two seconds of CPU: tests share a process, save those that kill one.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import count
from typing import Any

import trio

from tests.aqua.npm import PROJECT, Tools

START = 30.0  # seconds for a client, and for the process when it is the first one
CLOSE = 10.0  # seconds
TTL = 12.0  # seconds that a particle lives


class CallFailed(Exception):
    """What the client rejected a call with."""


class PeerGone(Exception):
    """The process ended."""


class JsProcess:
    """A running peer.mjs. It outlives a test's Trio: `within` reads what it says meanwhile."""

    def __init__(self, tools: Tools) -> None:
        command = [str(tools.node), "--no-deprecation", "peer.mjs", str(tools.compiled)]
        self._process = subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._received = b""
        self._numbers = count(1)
        self._waiting: dict[int, trio.MemorySendChannel[dict[str, Any]]] = {}
        self._peers: dict[int, JsPeer] = {}

    @property
    def process_id(self) -> int:
        """Of the process, which the clients share."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def kill(self) -> None:
        """End it as a crash would."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Kill it, and close its pipes."""
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    @asynccontextmanager
    async def within(self) -> AsyncIterator[None]:
        """Clients are told what to do, and heard, within this."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._writing = trio.Lock()
        async with (
            trio.lowlevel.FdStream(os.dup(self._process.stdin.fileno())) as self._stdin,
            trio.lowlevel.FdStream(os.dup(self._process.stdout.fileno())) as stdout,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(self._read, stdout)
            yield
            nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def peer(self, relay: str, *, streams: int | None = None) -> AsyncIterator[JsPeer]:
        """A client of the node at `relay`, a WebSocket multiaddr; disconnected in the end.

        `streams`: how many it has at most, either way; its own limit if not given.
        """
        limits = {} if streams is None else {"streams": streams}
        number = next(self._numbers)
        peer = self._peers[number] = JsPeer(self, number)
        try:
            with trio.fail_after(START):
                peer.peer_id = await self.ask(peer=number, open=relay, **limits)
            yield peer
        finally:
            patience = trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE)
            with patience, suppress(CallFailed, PeerGone):  # it never opened, or the test killed it
                await self.ask(peer=number, close=True)
            del self._peers[number]

    async def ask(self, **command: object) -> Any:
        """What the process answers; raises CallFailed, PeerGone."""
        number = next(self._numbers)
        sender, receiver = trio.open_memory_channel[dict[str, Any]](1)
        self._waiting[number] = sender
        try:
            line = json.dumps({"id": number, **command}).encode() + b"\n"
            async with self._writing:
                await self._stdin.send_all(line)
            answer = await receiver.receive()
        except (trio.EndOfChannel, trio.BrokenResourceError):
            raise PeerGone from None
        finally:
            self._waiting.pop(number, None)
        if "error" in answer:
            raise CallFailed(answer["error"])
        return answer["result"]

    async def _read(self, stdout: trio.lowlevel.FdStream) -> None:
        async for piece in stdout:
            *lines, self._received = (self._received + piece).split(b"\n")
            for line in lines:
                self._take(line)
        for sender in self._waiting.values():
            sender.close()

    def _take(self, line: bytes) -> None:
        try:
            said = json.loads(line)
        except ValueError:
            print(line.decode(errors="replace"))  # noqa: T201 - the clients' own words, shown beside a failure
            return
        if "peer" in said:
            if (peer := self._peers.get(said["peer"])) is not None:
                peer.take(said)
        elif (sender := self._waiting.get(said["id"])) is not None:
            sender.send_nowait(said)


class JsPeer:
    """A client. `called`: the names that its greeter was called with; `heard`: the greetings it heard."""

    def __init__(self, process: JsProcess, number: int) -> None:
        self.process = process
        self.peer_id = ""
        self._number = number
        self._called, self.called = trio.open_memory_channel[str](math.inf)
        self._heard, self.heard = trio.open_memory_channel[str](math.inf)

    async def call(self, function: str, *arguments: object, ttl: float = TTL) -> Any:
        """A compiled function's result; raises CallFailed, PeerGone."""
        return await self.process.ask(peer=self._number, call=function, args=arguments, ttl=int(ttl * 1000))

    async def serve(self, service_id: str, greeting: str | None) -> None:
        """Serve a greeter that answers with a greeting, or never."""
        await self.process.ask(**{"peer": self._number, "serve": service_id, "as": greeting})

    def take(self, said: dict[str, str]) -> None:
        """An event of this client's."""
        if "called" in said:
            self._called.send_nowait(said["called"])
        else:
            self._heard.send_nowait(said["heard"])


@asynccontextmanager
async def process_of_its_own(tools: Tools) -> AsyncIterator[JsProcess]:
    """For clients that a test kills; killed in the end."""
    process = JsProcess(tools)
    try:
        async with process.within():
            yield process
    finally:
        process.close()
