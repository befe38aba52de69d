"""A server whose answers are made up: the page of a network that is too large to run here, to measure how it renders.

The page, its files and HTTP are ours; what a node would answer is computed from numbers.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from hashlib import sha256
from typing import Any, Final

import base58
import trio

from aqua_compat.http.connection import Connection
from aqua_compat.http.message import HttpReply, HttpRequest
from aqua_compat.http.ui.page_files import is_of_page, page_reply
from aqua_compat.settings import HttpSettings

PAGE_SIZE: Final = 256
STATES: Final = ("passing", "passing", "passing", "warning", "critical")


def peer(number: int) -> str:
    return base58.b58encode(b"\x00\x24\x08\x01\x12\x20" + sha256(b"peer %d" % number).digest()).decode()


def listed(number: int) -> dict[str, Any]:
    label = f"service-{number:05}"
    resource_id = base58.b58encode(sha256(label.encode()).digest()).decode()
    return {
        "resource_id": resource_id, "label": label, "owner_peer_id": peer(0), "standing": "live", "time": 1,
        "name": f"{label}@me",
    }  # fmt: skip


def record(number: int) -> dict[str, Any]:
    metadata = {
        "key_id": "x", "issued_by": peer(number), "peer_id": peer(number), "timestamp_issued": 1, "solution": [],
        "value": "tcp://192.0.2.1:80", "relay_id": [], "service_id": ["web"],
    }  # fmt: skip
    health = {
        "up": True, "up_or_down_for": 5.0, "accusers": [], "stopped": False,
        "state": STATES[number % len(STATES)], "since": 1, "note": "",
    }  # fmt: skip
    return {"record": {"metadata": metadata, "instances": []}, "health": health}


class MadeUp:
    """Answers as a node among `nodes` with `services`."""

    def __init__(self, nodes: int, services: int) -> None:
        self._nodes = nodes
        self._services = services

    async def answer(self, request: HttpRequest) -> HttpReply:
        await trio.lowlevel.checkpoint()
        if is_of_page(request):
            return page_reply(request)
        body = json.dumps({"schema": "x", "result": self._result(request), "warnings": []}).encode()
        return HttpReply(200, [("Content-Type", "application/json")], body)

    def _result(self, request: HttpRequest) -> Any:
        given = dict(request.query)
        match request.path[2:]:
            case ("status",):
                return {
                    "peer_id": peer(0), "addresses": [], "members": [], "keys": 1, "records": 1, "uptime": 3.0,
                    "ready": True, "caught_up": True, "watched": 0, "disk": None, "replication": None, "overlay": None,
                }  # fmt: skip
            case ("network",):
                members = [
                    {
                        "peer_id": peer(each), "position": each / self._nodes, "linked": each % 3 > 0,
                        "neighbour": False, "up": each % 29 > 0,
                    }
                    for each in range(1, self._nodes)
                ]  # fmt: skip
                owners = [{"name": "me", "peer_id": peer(0)}]
                return {"peer_id": peer(0), "position": 0.0, "members": members, "owners": owners, "resource": None}
            case ("owners", _, "resources"):
                start = int(given.get("after", "-1").rpartition("-")[2] or -1) + 1 if "after" in given else 0
                page = [listed(each) for each in range(start, min(start + PAGE_SIZE, self._services))]
                is_last = start + PAGE_SIZE >= self._services
                return {"resources": page, "after": None if is_last else page[-1]["label"]}
            case ("resources", _, "records"):
                return [record(each) for each in range(3)]
        raise AssertionError(request.path)


@asynccontextmanager
async def made_up_network(nodes: int, services: int) -> AsyncIterator[str]:
    """The address of its page."""
    server = MadeUp(nodes, services)

    async def on_connection(stream: trio.SocketStream) -> None:
        await Connection(stream, server.answer, HttpSettings()).serve()

    async with trio.open_nursery() as nursery:
        listeners: list[trio.SocketListener] = await nursery.start(
            partial(trio.serve_tcp, on_connection, 0, host="127.0.0.1")
        )
        yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/ui/"
        nursery.cancel_scope.cancel()
