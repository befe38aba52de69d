"""Finds the echo services of a resource and calls each of them.

python examples/service_discovery/client.py --relay ADDRESS RESOURCE_ID "Hello"
"""

from __future__ import annotations

import argparse
import sys
from urllib.parse import urlsplit

import trio

from aqua_compat import Record, connect


async def call_all(relays: list[str], resource_id: str, text: str) -> int:
    async def call(record: Record) -> None:
        address = urlsplit(record.metadata.value)
        if address.scheme != "tcp" or address.hostname is None or address.port is None:
            raise ValueError(f"{record.metadata.value!r} is no tcp:// address")
        async with await trio.open_tcp_stream(address.hostname, address.port) as stream:
            await stream.send_all(text.encode())
            await stream.send_eof()
            answer = b"".join([piece async for piece in stream])
        print(f"{record.metadata.peer_id} says {answer.decode()}")

    async with connect(relays) as aqua:
        success, errors = await aqua.executeOnResource(resource_id, 1, call)
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    return 0 if success else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--relay", action="append", required=True, metavar="ADDRESS", help="a node; repeatable")
    parser.add_argument("resource_id")
    parser.add_argument("text")
    options = parser.parse_args()
    sys.exit(trio.run(call_all, options.relay, options.resource_id, options.text))
