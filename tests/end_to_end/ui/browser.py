"""A headless Chromium, driven by its own protocol (Chrome DevTools) over the WebSocket that py-libp2p brings along."""

from __future__ import annotations

import base64
import itertools
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, open_websocket_url

NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS: Final = (
    "--headless=new",
    "--no-sandbox",  # the tests may run as root; all that it loads is ours
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)
START: Final = 60.0  # seconds
PATIENCE: Final = 20.0  # seconds for what the page is waited for
LARGEST: Final = 64 * 1024 * 1024  # bytes of a message, such as a screenshot


def chromium() -> str:
    """The browser; the test is skipped where there is none."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("there is no Chromium here (Debian: apt-get install chromium)")
    return found


class Tab:
    """A page of the browser. `problems`: what it complained of: errors in the console, exceptions, refused loads."""

    def __init__(self, socket: WebSocketConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._waiting: dict[int, tuple[trio.Event, list[dict[str, Any]]]] = {}
        self._session: str | None = None
        self.problems: list[str] = []

    async def run(self) -> None:
        """Reads what the browser sends, until it ends."""
        while True:
            try:
                message = json.loads(await self._socket.get_message())
            except ConnectionClosed:
                return
            if "id" in message:
                event, answer = self._waiting.pop(message["id"])
                answer.append(message)
                event.set()
            else:
                self._note(message["method"], message.get("params", {}))

    def _note(self, method: str, given: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(given["exceptionDetails"])[:600])
        elif method == "Runtime.consoleAPICalled" and given["type"] in ("error", "warning", "assert"):
            self.problems.append(json.dumps(given["args"])[:600])
        elif method == "Log.entryAdded" and given["entry"]["level"] in ("error", "warning"):
            self.problems.append(f"{given['entry']['text']} {given['entry'].get('url', '')}")

    async def call(self, method: str, **parameters: object) -> dict[str, Any]:
        number, event = next(self._numbers), trio.Event()
        answer: list[dict[str, Any]] = []
        self._waiting[number] = (event, answer)
        session = {"sessionId": self._session} if self._session else {}
        await self._socket.send_message(json.dumps({"id": number, "method": method, "params": parameters, **session}))
        with trio.fail_after(PATIENCE):
            await event.wait()
        assert "error" not in answer[0], (method, answer[0])
        result: dict[str, Any] = answer[0]["result"]
        return result

    async def attach(self) -> None:
        target = await self.call("Target.createTarget", url="about:blank")
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.call(f"{domain}.enable")

    async def show(self, *, width: int = 1440, height: int = 900, dark: bool = False) -> None:
        """How large the window is, and which colours the system asks for."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        await self.call("Emulation.setEmulatedMedia", features=features)

    async def open(self, url: str) -> None:
        await self.call("Page.navigate", url=url)
        await self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    async def evaluate(self, expression: str) -> Any:
        """The value of an expression of JavaScript, awaited where it is a promise."""
        done = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, (expression[:200], done)
        return done["result"].get("value")

    async def until(self, condition: str, within: float = PATIENCE) -> None:
        """Waits, in the page, until a condition holds: it is looked at with each frame."""
        loop = (
            "new Promise((resolve) => { const look = () => { let held = false; try { held = Boolean(%s); } catch {}"
            " if (held) { resolve(true); } else { setTimeout(look, 15); } }; look(); })"
        )
        with trio.move_on_after(within) as patience:
            await self.evaluate(loop % condition)
        if patience.cancelled_caught:
            text = await self.evaluate("document.body.innerText")
            raise AssertionError(f"not within {within} s: {condition}\n{self.problems}\n{text}")

    async def press(self, key: str, code: int, text: str = "") -> None:
        for kind in ("keyDown", "keyUp"):
            await self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, text=text
            )

    async def type(self, text: str) -> None:
        await self.call("Input.insertText", text=text)

    async def screenshot(self, path: Path, *, whole: bool = False) -> None:
        taken = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        await trio.Path(path).write_bytes(base64.b64decode(taken["data"]))


@asynccontextmanager
async def browsing(folder: Path) -> AsyncIterator[Tab]:
    """A tab of a browser that ends with the block."""
    command = [chromium(), *FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"]
    async with trio.open_nursery() as nursery:
        process = await trio.lowlevel.open_process(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            assert process.stderr is not None
            with trio.fail_after(START):
                url = await _address_in(process.stderr)
            nursery.start_soon(_drain, process.stderr)
            async with open_websocket_url(url, max_message_size=LARGEST) as socket:
                tab = Tab(socket)
                nursery.start_soon(tab.run)
                await tab.attach()
                await tab.show()
                yield tab
        finally:
            process.terminate()
            with trio.CancelScope(shield=True):
                with trio.move_on_after(10):
                    await process.wait()
                if process.returncode is None:
                    process.kill()
                    await process.wait()
            nursery.cancel_scope.cancel()


async def _address_in(stream: trio.abc.ReceiveStream) -> str:
    said = b""
    while True:
        piece = await stream.receive_some(4096)
        assert piece, said
        said += piece
        found = re.search(rb"DevTools listening on (ws://\S+)\s", said)
        if found:
            return found.group(1).decode()


async def _drain(stream: trio.abc.ReceiveStream) -> None:
    while await stream.receive_some(65536):
        pass
