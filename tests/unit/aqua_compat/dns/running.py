"""A node with its DNS server, in this process, and a client of it."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import dns.message
import dns.rdatatype
import trio

from aqua_compat.api.full_node import identity_in, open_full_node
from aqua_compat.dns.server import DnsServer, open_dns_server
from aqua_compat.settings import DnsSettings, Settings
from overlay.settings import OverlaySettings
from registry.model.endpoints import Instance, write_instances
from registry.model.names import Names
from registry.node import Node

ANSWERED_WITHIN = 5.0  # seconds


class Asked(NamedTuple):
    """A node and its server; `ask` is a client of it."""

    node: Node
    server: DnsServer

    async def ask(
        self, name: str, kind: str = "A", *, by_tcp: bool = False, edns: int | None = None
    ) -> dns.message.Message:
        """`edns`: bytes that the client takes; None: it doesn't speak EDNS."""
        query = dns.message.make_query(name, kind, use_edns=False if edns is None else 0, payload=edns or 0)
        wire = await (self.by_tcp if by_tcp else self.by_udp)(query.to_wire())
        answer = dns.message.from_wire(wire)
        assert query.is_response(answer), answer
        assert by_tcp or len(wire) <= max(edns or 0, 512)
        return answer

    async def by_udp(self, wire: bytes) -> bytes:
        client = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
        with client, trio.fail_after(ANSWERED_WITHIN):
            await client.connect(tuple(self.server.address))
            await client.send(wire)
            return await client.recv(65_535)

    async def by_tcp(self, *wires: bytes) -> bytes:
        """The answer to the last of several messages on one connection; empty where it was closed before."""
        with trio.fail_after(ANSWERED_WITHIN):
            async with await trio.open_tcp_stream(*self.server.address) as stream:
                await stream.send_all(b"".join(struct.pack("!H", len(wire)) + wire for wire in wires))
                received, answers = b"", []
                while len(answers) < len(wires):
                    while len(received) < 2 or len(received) < 2 + struct.unpack_from("!H", received)[0]:
                        try:
                            piece = await stream.receive_some(65_535)
                        except trio.BrokenResourceError:
                            return b""
                        if not piece:
                            return b""
                        received += piece
                    end = 2 + struct.unpack_from("!H", received)[0]
                    answers.append(received[2:end])
                    received = received[end:]
                return answers[-1]

    async def register(self, label: str, instances: Sequence[Instance]) -> str:
        """Creates a resource with one record of this node; its id."""
        created = await self.node.registry.create_resource(label)
        assert created.resource_id is not None, created
        done = await self.node.registry.register_service(
            created.resource_id, write_instances(instances), self.node.peer.peer_id, None
        )
        assert done.success, done
        return created.resource_id


def told(answer: dns.message.Message) -> set[str]:
    """The records of an answer, each as text."""
    return {each.to_text() for found in answer.answer for each in found}


@asynccontextmanager
async def running_dns(
    data_dir: Path,
    dns_settings: DnsSettings | None = None,
    names: dict[str, str] | None = None,
    names_now: Callable[[], Names] | None = None,
) -> AsyncIterator[Asked]:
    known = Names(names)
    settings = Settings(
        overlay=OverlaySettings(listen=("/ip4/127.0.0.1/tcp/0",)),
        dns=dns_settings or DnsSettings(listen="127.0.0.1:0"),
    )
    async with (
        open_full_node(identity_in(data_dir), settings, data_dir) as (node, _),
        open_dns_server(node, settings.dns, names_now or (lambda: known)) as server,
    ):
        yield Asked(node, server)
