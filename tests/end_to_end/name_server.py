"""A name server on loopback, and what `dnsaddr` finds there: prints the addresses of each name, or why there are none.

To be run where /etc/resolv.conf names 127.0.0.1, and port 53 is free.
Usage: python name_server.py RECORDS NAME [NAME ...]
RECORDS is JSON: the texts of names.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import trio

from aqua_compat.cli.logs import configure_logs
from overlay.discovery.dnsaddr import look_up_dnsaddr
from overlay.errors import BootstrapFailed


def answer(query: dns.message.Message, records: Mapping[str, Sequence[str]]) -> dns.message.Message:
    """What a server with these texts says."""
    reply = dns.message.make_response(query, recursion_available=True)
    [question] = query.question
    texts = records.get(question.name.to_text().rstrip("."))
    if texts is None:
        reply.set_rcode(dns.rcode.NXDOMAIN)
    else:
        reply.answer.append(
            dns.rrset.from_text_list(question.name, 60, "IN", "TXT", [json.dumps(one) for one in texts])
        )
    return reply


async def serve(
    records: Mapping[str, Sequence[str]], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Answers by UDP and TCP until cancelled."""

    async def by_tcp(stream: trio.SocketStream) -> None:
        received = b""
        while len(received) < 2 or len(received) < 2 + int.from_bytes(received[:2], "big"):
            received += await stream.receive_some(65_537)
        reply = answer(dns.message.from_wire(received[2:]), records).to_wire()
        await stream.send_all(len(reply).to_bytes(2, "big") + reply)

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(53, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, by_tcp, [listener])
        with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as udp:
            await udp.bind(("127.0.0.1", 53))
            task_status.started()
            while True:
                wire, asking = await udp.recvfrom(4096)
                reply = answer(dns.message.from_wire(wire), records)
                if len(reply.to_wire()) > 1232:
                    reply.answer.clear()
                    reply.flags |= dns.flags.TC
                await udp.sendto(reply.to_wire(), asking)


async def main(records: Mapping[str, Sequence[str]], names: Sequence[str]) -> None:
    """Prints a line of JSON for each name."""
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, records)
        for name in names:
            try:
                print(json.dumps(await look_up_dnsaddr(name)))  # noqa: T201
            except BootstrapFailed as error:
                print(json.dumps(str(error)))  # noqa: T201
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    configure_logs("error", "human")
    trio.run(main, json.loads(sys.argv[1]), sys.argv[2:])
