"""Runs an echo service of its own on TCP, and keeps it registered on a resource for as long as it runs.

    python examples/service_discovery/provider.py --relay ADDRESS

Prints the resource's id, by which a client finds the service; stops cleanly on Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import argparse
import signal
import sys
from functools import partial

import trio

from aqua_compat import connect


async def echo(stream: trio.SocketStream) -> None:
    """Sends back what one client sends, until it stops."""
    with trio.move_on_after(60):
        try:
            async for piece in stream:
                await stream.send_all(piece)
        except trio.BrokenResourceError:
            pass  # it went away in the middle


async def provide(relays: list[str], label: str) -> None:
    async with connect(relays) as aqua, trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, echo, 0, host="127.0.0.1"))
        host, port = listeners[0].socket.getsockname()
        resource_id, errors = await aqua.createResource(label)
        if resource_id is None:
            sys.exit(f"the resource wasn't created: {errors}")
        # From now on the client renews the record, until it ends or the record does.
        registered, errors = await aqua.registerService(resource_id, f"tcp://{host}:{port}", aqua.peer_id, "echo")
        if not registered:
            sys.exit(f"the service wasn't registered: {errors}")
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            print(resource_id, flush=True)
            await anext(signals)
        await aqua.unregisterService(resource_id, aqua.peer_id)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--relay", action="append", required=True, metavar="ADDRESS", help="a node; repeatable")
    parser.add_argument("--label", default="echo", help="label of the resource (default: echo)")
    options = parser.parse_args()
    trio.run(provide, options.relay, options.label)
