"""What a watcher makes of odd answers to its requests for subscriptions."""

from __future__ import annotations

import pytest

from registry.protocol.messages import build, parse
from registry.watch.messages import MAX_SERVERS, Server, SubscriptionReply
from tests.unit.registry.builders import HOST, NODE

ADDRESSES = ("/ip4/192.0.2.1/tcp/4001",)


@pytest.mark.parametrize("name", ["", "nobody", "0OIl", "é", "12D3KooW", f" {NODE.peer_id}", "1" * 1000])
def test_who_is_named_as_a_server_without_being_a_peer_is_left_out(name: str) -> None:
    """It would be called, and where it can be reached be remembered."""
    named = tuple(Server(peer_id, ADDRESSES) for peer_id in (HOST.peer_id, name, NODE.peer_id))
    reply = parse([None, b"", 0, 0.0, [build(server) for server in named]], SubscriptionReply)
    assert [server.peer_id for server in reply.servers] == [HOST.peer_id, NODE.peer_id]


def test_so_many_servers_are_read() -> None:
    reply = parse([None, b"", 0, 0.0, [[NODE.peer_id, list(ADDRESSES)]] * 100], SubscriptionReply)
    assert len(reply.servers) == MAX_SERVERS
