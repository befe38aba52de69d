"""py-consul, as it comes from PyPI, finds, waits, registers and reports."""

from __future__ import annotations

from pathlib import Path

import consul
import trio

from tests.unit.aqua_compat.http.consul.agents import running_agent


def use(port: int) -> None:
    """Everything that the client has for discovery. Blocking."""
    client = consul.Consul(host="127.0.0.1", port=port)
    try:
        index, nodes = client.health.service("web")
        assert (nodes, int(index) >= 1) == ([], True)
        client.agent.service.register(
            "web", service_id="web-1", address="192.0.2.1", port=80, tags=["v2"], check=consul.Check.ttl("30s")
        )
        while not nodes:
            index, nodes = client.health.service("web", index=index, wait="30s")
        assert nodes[0]["Service"]["Address"] == "192.0.2.1"
        assert client.health.service("web", tag="v1")[1] == []
        _, nodes = client.health.service("web", filter_expr='Service.Tags contains "v2"')
        assert len(nodes) == 1
        assert client.agent.services()["web-1"]["Port"] == 80
        assert client.agent.checks()["service:web-1"]["Status"] == "critical"
        client.agent.check.ttl_pass("service:web-1", notes="fine")
        assert client.agent.checks()["service:web-1"]["Status"] == "passing"
        assert client.catalog.datacenters() == ["aqua", "me"]
        _, services = client.catalog.services()
        assert services == {"web": ["v2"]}
        assert client.catalog.service("web")[1][0]["ServicePort"] == 80
        _, [node] = client.catalog.nodes()
        assert node["Node"] == client.agent.self()["Config"]["NodeName"] == client.agent.members()[0]["Name"]
        assert list(client.catalog.node(node["Node"])[1]["Services"]) == ["web-1"]
        assert len(client.health.node(node["Node"])[1]) == 2
        assert [check["ServiceID"] for check in client.health.checks("web")[1]] == ["web-1"]
        assert client.health.state("any")[1]
        assert client.status.leader() in client.status.peers()
        client.agent.service.deregister("web-1")
        while nodes:
            index, nodes = client.health.service("web", index=index, wait="30s")
    finally:
        client.http.session.close()


async def test_py_consul_works_as_it_comes(tmp_path: Path) -> None:
    async with running_agent(tmp_path / "node", tmp_path / "services") as running:
        assert running.server.address is not None
        await trio.to_thread.run_sync(use, running.server.address.port)
