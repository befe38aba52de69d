"""DNS of real processes: the command's option, what others register, and who dies."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import dns.flags
import dns.message
import pytest
import trio

from aqua_compat import AquaClient, connect
from aqua_compat.cli.node_process import NodeProcess, start_network, stop_network
from aqua_compat.dns.peer_names import label_of_peer
from registry.model.endpoints import Instance, write_instances
from tests.end_to_end.forked import fork_server
from tests.end_to_end.network import eventually
from tests.end_to_end.test_dns_recipes import get
from tests.ports import free_port

KILLED_WITHIN = 3.0  # seconds; 1.5 on a machine that has nothing else to do
OTHERS = 6


async def told(port: int, name: str) -> set[str]:
    """The addresses that a name has; none where it isn't answered in a second."""
    query = dns.message.make_query(name, "A", use_edns=0)
    client = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
    with client, trio.move_on_after(1):
        await client.sendto(query.to_wire(), ("127.0.0.1", port))
        answer = dns.message.from_wire(await client.recv(4096))
        assert query.is_response(answer)
        return {each.to_text() for found in answer.answer for each in found}
    return set()


async def register(client: AquaClient, resource_id: str, host: NodeProcess, number: int) -> str:
    address = f"192.0.2.{number + 1}"
    value = write_instances([Instance(id="1", address=address, port=8000)])
    assert await client.registerService(resource_id, value, host.peer_id, None) == (True, [])
    return address


async def test_a_node_that_was_told_to_answers_dns_and_counts_it(tmp_path: Path) -> None:
    port, http = free_port(), free_port()
    node = NodeProcess(tmp_path / "node", tmp_path / "log", fork_server().open_process)
    try:
        await node.start("--dns", f"127.0.0.1:{port}", "--http", f"127.0.0.1:{http}")
        async with connect(node.address) as client:
            resource_id, errors = await client.createResource("web")
            assert resource_id is not None, errors
            address = await register(client, resource_id, node, 0)
            assert await told(port, f"web.{label_of_peer(client.peer_id)}.aqua") == {address}
        metrics = await get(http, "/metrics")
        assert 'aqua_dns_answers_total{rcode="NOERROR"} 1.0' in metrics
        assert "aqua_members 0.0" in metrics
        assert await get(http, "/readyz") == '{"ready":true,"not_ready":[]}'
    finally:
        await node.stop()


@pytest.mark.slow
async def test_who_was_killed_is_gone_within_seconds_and_back_with_its_process(tmp_path: Path) -> None:
    hosts = [
        NodeProcess(tmp_path / f"node{n}", tmp_path / f"node{n}.log", fork_server().open_process) for n in range(OTHERS)
    ]
    port = free_port()
    reader = NodeProcess(tmp_path / "reader", tmp_path / "reader.log", fork_server().open_process)
    try:
        await start_network(hosts)
        await reader.start("--bootstrap", hosts[0].address, "--dns", f"127.0.0.1:{port}")
        async with connect(hosts[0].address) as client:
            resource_id, errors = await client.createResource("web")
            assert resource_id is not None, errors
            addresses = [await register(client, resource_id, host, n) for n, host in enumerate(hosts)]
            ask = partial(told, port, f"web.{label_of_peer(client.peer_id)}.aqua")
        await eventually(ask, set(addresses).__eq__, 20)
        await trio.sleep(1)  # who is read is followed by now
        victim = hosts[3]
        await victim.kill()
        await eventually(ask, (set(addresses) - {addresses[3]}).__eq__, KILLED_WITHIN)
        await victim.start("--listen", victim.address.partition("/p2p/")[0], "--bootstrap", hosts[0].address)
        await eventually(ask, set(addresses).__eq__, 10)
    finally:
        await stop_network([reader, *hosts])
