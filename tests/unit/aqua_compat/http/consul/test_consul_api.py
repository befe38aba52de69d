"""Consul's paths on a node, asked over HTTP as its clients ask."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from aqua_compat.cli.service_source import SettingsOfServices
from aqua_compat.http.listeners import Misconfigured
from aqua_compat.http.message import AccessLevel, HttpRequest, path_and_query
from aqua_compat.http.tokens import Tokens
from aqua_compat.settings import ConsulSettings, HttpSettings, Settings
from overlay.identity import Identity
from registry.health.state import HealthState
from registry.model.endpoints import Instance, write_instances
from registry.model.values import Key
from registry.protocol.messages import Item
from tests.unit.aqua_compat.http.running import Answered, Running, running_server

ACME = Identity.from_seed(b"a" * 32)
WEB = (
    Instance(id="web-1", address="192.0.2.1", port=80, tags=("V1", "blue"), metadata={"zone": "eu"}, weight=10),
    Instance(id="web-2", address="192.0.2.2", port=81, tags=("v2",), metadata={"zone": "us"}),
)


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(20):
        while not condition():  # noqa: ASYNC110 - nothing tells how many wait
            await trio.sleep(0.005)


class Consul:
    """What a test does to a node, and asks it."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.me = running.node.peer.peer_id

    async def register(self, label: str, *instances: Instance) -> str:
        registry = self.running.node.registry
        created = await registry.create_resource(label)
        assert created.resource_id is not None, created
        await self.issue(created.resource_id, *instances)
        return created.resource_id

    async def issue(self, resource_id: str, *instances: Instance) -> None:
        done = await self.running.node.registry.register_service(resource_id, write_instances(instances), self.me, None)
        assert done.success, done

    async def say(self, resource_id: str, state: HealthState, instance: str = "") -> None:
        done = await self.running.node.registry.report_health(
            resource_id, state, "why", peer_id=self.me, instance=instance
        )
        assert done.success, done

    async def get(self, path: str, **headers: str) -> Any:
        answer = await self.running.ask("GET", f"/v1/{path}", **headers)
        assert answer.status == 200, (path, answer)
        return answer.json()

    async def index(self, path: str) -> int:
        answer = await self.running.ask("GET", f"/v1/{path}")
        assert answer.headers["x-consul-knownleader"] == "true"
        assert answer.headers["x-consul-lastcontact"] == "0"
        index = int(answer.headers["x-consul-index"])
        assert index >= 1
        return index

    @asynccontextmanager
    async def waiting(self, path: str, index: int, wait: str = "60s") -> AsyncIterator[list[Answered]]:
        """A blocked query, which waits when the block begins; what it returned is in the list once it did. It has to
        return before the test's time is up."""
        returned: list[Answered] = []
        before = self.running.server.watches

        async def ask() -> None:
            sign = "&" if "?" in path else "?"
            returned.append(await self.running.ask("GET", f"/v1/{path}{sign}index={index}&wait={wait}"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            with trio.fail_after(20):
                await until(lambda: self.running.server.watches > before or bool(returned))
                yield returned

    async def once(self, path: str, is_so: Callable[[Any], bool]) -> Answered:
        """The answer once it is so, asked for as Consul's clients wait: lists settle for a moment."""
        index = "0"
        with trio.fail_after(20):
            while True:
                answer = await self.running.ask("GET", f"/v1/{path}?index={index}&wait=20s")
                if is_so(answer.json()):
                    return answer
                index = answer.headers["x-consul-index"]

    async def ids(self, query: str) -> list[str]:
        return [each["Service"]["ID"] for each in await self.get(f"health/service/{query}")]


@asynccontextmanager
async def consul(folder: Path, http: HttpSettings | None = None) -> AsyncIterator[Consul]:
    async with running_server(folder, http, {"acme": ACME.peer_id}) as running:
        yield Consul(running)


async def test_services_are_told_as_consul_tells_them(tmp_path: Path) -> None:
    async with consul(tmp_path) as node:
        me = node.me
        resource_id = await node.register("web", *WEB)
        await node.register("api", Instance(id="api-1"))
        unsigned = Key("theirs", ACME.peer_id, int(time.time()), b"", "", b"")
        signed = Key("theirs", ACME.peer_id, unsigned.timestamp_created, b"", "", ACME.sign(unsigned.signed_bytes()))
        await node.running.node.parts.node_api.write(Item(signed), factor=1, timeout=5)
        await node.issue(signed.id, Instance(id="theirs-1", address="192.0.2.9", port=90))

        assert await node.get("catalog/datacenters") == ["aqua", "acme", "me"]
        assert await node.get("catalog/services") == {"api": [], "web": ["V1", "blue", "v2"]}
        assert await node.get("catalog/services?dc=me") == await node.get("catalog/services")
        assert await node.get("catalog/services?dc=acme") == {"theirs": []}
        assert await node.get("catalog/services?filter=blue+in+Tags") == {"web": ["V1", "blue"]}
        [theirs] = await node.get("health/service/theirs?dc=acme")
        assert (theirs["Service"]["Address"], theirs["Node"]["Datacenter"]) == ("192.0.2.9", "acme")
        assert await node.get("health/service/theirs") == []

        [one, two] = await node.get("health/service/web")
        assert one["Service"] | {"CreateIndex": 0, "ModifyIndex": 0} == {
            "ID": "web-1", "Service": "web", "Tags": ["V1", "blue"], "Address": "192.0.2.1", "TaggedAddresses": {},
            "Meta": {"zone": "eu"}, "Port": 80, "Weights": {"Passing": 10, "Warning": 10}, "EnableTagOverride": False,
            "CreateIndex": 0, "ModifyIndex": 0,
        }  # fmt: skip
        assert (one["Node"]["Node"], one["Node"]["Address"]) == (me, "127.0.0.1")
        assert [check["CheckID"] for check in two["Checks"]] == ["serfHealth", "service:web-2"]
        assert await node.ids("web?tag=v1&tag=BLUE") == ["web-1"]
        assert await node.ids("web?tag=v1&tag=v2") == []
        assert await node.ids("web?node-meta=rack:1") == []
        for path in ("catalog/nodes", "health/state/any", "health/checks/web", "catalog/service/web"):
            assert await node.get(f"{path}?node-meta=rack:1") == [], "no node has metadata"
        assert await node.get("catalog/services?node-meta=rack:1") == {}
        assert await node.get("catalog/services") != {}
        assert await node.ids("web?near=_agent") == ["web-1", "web-2"]
        assert await node.ids('web?filter=Service.Meta.zone+%3D%3D+"us"') == ["web-2"]
        [flat, _] = await node.get("catalog/service/web")
        assert (flat["ServiceID"], flat["ServiceAddress"], flat["ServicePort"]) == ("web-1", "192.0.2.1", 80)
        assert [each["ServiceID"] for each in await node.get("health/checks/web")] == ["web-1", "web-2"]

        assert [each["Node"] for each in await node.get("catalog/nodes")] == [me]
        on_me = await node.get(f"catalog/node/{me}")
        assert (on_me["Node"]["Node"], sorted(on_me["Services"])) == (me, ["api-1", "web-1", "web-2"])
        assert await node.get(f"catalog/node/{ACME.peer_id}") is None
        assert len(await node.get(f"health/node/{me}")) == 4
        assert await node.get(f"health/node/{ACME.peer_id}") == []

        await node.say(resource_id, HealthState.WARNING, "web-1")
        assert await node.ids("web?passing") == ["web-2"]
        assert await node.ids("web") == ["web-1", "web-2"]
        assert len(await node.get("catalog/service/web?passing")) == 2, "it means nothing there, as with Consul"
        assert len(await node.get("health/checks/web?passing&tag=v2")) == 2
        assert len(await node.get("catalog/service/web?tag=v2")) == 1
        await node.say(resource_id, HealthState.CRITICAL)
        assert await node.ids("web?passing=1") == []
        assert {each["Output"] for each in await node.get("health/checks/web")} == {"why"}
        await node.once("health/state/critical", lambda told: len(told) == 2)
        assert len(await node.get("health/state/any")) == 4
        assert [each["CheckID"] for each in await node.get("health/state/passing")] == ["serfHealth", "service:api-1"]

        assert (await node.get("agent/self"))["Config"]["NodeName"] == me
        assert [each["Name"] for each in await node.get("agent/members")] == [me]
        assert await node.get("agent/services") == {} == await node.get("agent/checks")
        assert await node.get("status/leader") == "127.0.0.1:8300"
        assert await node.get("status/peers") == ["127.0.0.1:8300"]

        await refuses(node.running)


async def refuses(running: Running) -> None:
    for method, path, status, told in (
        ("GET", "kv/some/key", 501, "key/value"),
        ("PUT", "session/create", 501, "no sessions"),
        ("GET", "catalog/gateway-services/x", 501, "docs/consul.md"),
        ("GET", "health/service/", 501, "docs/consul.md"),
        ("GET", "agent/metrics", 501, "docs/consul.md"),
        ("GET", "agent/nothing", 404, "neither"),
        ("GET", "nothing", 404, "neither"),
        ("PUT", "catalog/services", 405, "PUT"),
        ("GET", "agent/service/register", 404, "unknown service"),
        ("GET", "catalog/services?dc=elsewhere", 400, "No path to datacenter"),
        ("GET", "health/state/fine", 400, "no state"),
        ("GET", "health/service/web?index=x", 400, "Invalid index"),
        ("GET", "health/service/web?filter=Nope+is+empty", 400, "no field"),
        ("GET", f"health/service/{'x' * 5000}", 400, "label"),
        ("PUT", "agent/service/register", 501, "--services"),
        ("PUT", "agent/check/pass/x", 501, "--services"),
    ):
        answer = await running.ask(method, f"/v1/{path}", {"Name": "x"} if method == "PUT" else None)
        assert answer.status == status, (path, answer)
        assert told in answer.body.decode(), (path, answer)
        assert answer.headers["content-type"].startswith("text/plain")
    head = await running.ask("GET", "/v1/health/service/web")
    assert int(head.headers["content-length"]) == len(head.body)


async def test_a_blocked_query_returns_when_its_own_answer_changes_and_not_before(tmp_path: Path) -> None:
    async with consul(tmp_path) as node:
        missing = await node.index("health/service/web")
        services = await node.index("catalog/services")
        async with (
            node.waiting("health/service/web", missing) as came,
            node.waiting("catalog/services", services) as listed,
        ):
            other = await node.register("api", Instance(id="api-1", address="192.0.2.1", port=1))
            assert not came  # an index is a service's own
            resource_id = await node.register("web", *WEB)
        assert [each["Service"]["ID"] for each in came[0].json()] == ["web-1", "web-2"]
        assert "api" in listed[0].json()

        index = await node.index("health/service/web")
        assert index > missing
        services = (await node.once("catalog/services", lambda told: "web" in told)).headers["x-consul-index"]
        async with (
            node.waiting("health/service/web?passing", index) as came,
            node.waiting("catalog/services", int(services), "400ms") as listed,
        ):
            await node.issue(resource_id, *WEB)  # signed anew, and the same
            await node.say(other, HealthState.CRITICAL)
            assert not came
            await node.say(resource_id, HealthState.WARNING, "web-2")
        assert [each["Service"]["ID"] for each in came[0].json()] == ["web-1"]
        assert listed[0].headers["x-consul-index"] == services  # how they are isn't listed there

        index = await node.index("health/service/web")
        async with node.waiting("health/service/web", index) as came, node.waiting("health/state/any", 1) as states:
            await node.running.node.registry.unregister_service(resource_id, node.me)
        assert came[0].json() == []
        assert int(came[0].headers["x-consul-index"]) > index
        assert states[0].json()  # an index that isn't the answer's own is answered at once

        services = await node.index("catalog/services")
        async with node.waiting("catalog/services", services) as listed:
            assert (await node.running.node.registry.remove_resource(other)).success
        assert listed[0].json() == {}


async def test_a_query_is_answered_once_its_own_nodes_disk_has_a_change_whoever_else_is_waited_for(
    tmp_path: Path,
) -> None:
    """The other replica's disk is busy all the while."""
    order: list[str] = []
    go_on = threading.Event()
    async with consul(tmp_path / "one") as node:
        peer = node.running.node.peer
        bootstrap = (peer.addresses()[0],)
        async with running_server(tmp_path / "other", bootstrap=bootstrap) as other, trio.open_nursery() as nursery:
            with trio.fail_after(20):
                await other.node.peer.wait_joined()
                await until(lambda: peer.is_linked(other.node.peer.peer_id))
            both = sorted([node.me, other.node.peer.peer_id])
            await node.once("catalog/nodes", lambda told: [each["Node"] for each in told] == both)
            checks = [(each, "serfHealth") for each in both]
            passing = "health/state/passing"
            await node.once(passing, lambda told: [(each["Node"], each["CheckID"]) for each in told] == checks)
            assert await node.get("health/state/critical") == []
            resource_id = await node.register("web", WEB[0])
            index = await node.index("health/service/web")

            async def write() -> None:
                done = await node.running.node.registry.register_service(
                    resource_id, write_instances(WEB), node.me, None, factor=2, timeout=20
                )
                order.append(f"{done.stored} replicas have it")

            nursery.start_soon(other.node.store.read, lambda _: go_on.wait())
            try:
                async with node.waiting("health/service/web", index) as came:
                    nursery.start_soon(write)
                    await until(lambda: bool(came))
                    order.append(f"{len(came[0].json())} instances are told")
            finally:
                go_on.set()
    assert order == ["2 instances are told", "2 replicas have it"]


async def test_a_query_waits_as_long_as_it_says_and_stopping_answers_all(tmp_path: Path) -> None:
    async with consul(tmp_path / "one") as node:
        index = await node.index("health/service/web")
        began = trio.current_time()
        async with node.waiting("health/service/web", index, "300ms") as came:
            pass
        assert 0.3 <= trio.current_time() - began < 5
        assert came[0].headers["x-consul-index"] == str(index)
        returned: list[Answered] = []

        async def ask() -> None:
            returned.append(await node.running.ask("GET", f"/v1/health/service/web?index={index}"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await until(lambda: node.running.server.watches > 0)
            node.running.server.consul.stop()
        assert returned[0].headers["x-consul-index"] == str(index)
    async with consul(tmp_path / "one") as again:
        assert await again.index("health/service/web") > index


async def test_only_so_many_wait_and_one_that_leaves_makes_room(tmp_path: Path) -> None:
    settings = HttpSettings(listen="127.0.0.1:0", max_watches=4, consul=ConsulSettings(owner="acme", datacenter="dc1"))
    async with consul(tmp_path, settings) as node:
        running = node.running
        assert await node.get("catalog/datacenters") == ["dc1", "acme", "me"]
        index = await node.index("health/service/web")

        def request(client: str) -> HttpRequest:
            path, query = path_and_query(f"/v1/health/service/web?index={index}")
            return HttpRequest("GET", path, query, {}, b"", AccessLevel.READ, client)

        async with trio.open_nursery() as nursery:
            for client in ("192.0.2.1", "192.0.2.1", "", ""):
                nursery.start_soon(running.server.consul.answer, request(client))
            await until(lambda: running.server.watches == 4)
            assert (await running.server.consul.answer(request("127.0.0.1"))).status == 503
            for path in ("health/service/web", "catalog/services"):  # who needn't wait needs no place
                assert (await running.ask("GET", f"/v1/{path}?index=1&tag=x")).status == 200, path
            assert b"\naqua_http_watches 4.0\n" in (await running.ask("GET", "/metrics")).body
            nursery.cancel_scope.cancel()
        assert running.server.watches == 0
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(running.server.consul.answer, request("192.0.2.1"))
            await until(lambda: running.server.watches >= 2)
            assert (await running.server.consul.answer(request("192.0.2.1"))).status == 429
            stream = await running.connect()
            await stream.send_all(
                f"GET /v1/health/service/web?index={index} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
            )
            await until(lambda: running.server.watches >= 3)
            await stream.aclose()
            await until(lambda: running.server.watches <= 2)
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("path", ["v1/health/service/web", "v1/catalog/services?index=1", "v1/aqua/status", "ui/"])
async def test_who_stops_sending_gets_the_answer(path: str, tmp_path: Path) -> None:
    """As `nc -N` does; the first query of a service has to look for it."""
    async with consul(tmp_path) as node:
        async with await node.running.connect() as stream:
            await stream.send_all(f"GET /{path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            await stream.send_eof()
            received = b"".join([bytes(piece) async for piece in stream])
        assert received.startswith(b"HTTP/1.1 200 OK\r\n")
        head, _, body = received.partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}\r\n".encode() in head + b"\r\n"


async def test_a_token_of_consuls_form_is_one(tmp_path: Path) -> None:
    token = Tokens(tmp_path).create("reader", AccessLevel.READ, 1)
    async with consul(tmp_path) as node:
        assert (await node.running.ask("GET", "/v1/catalog/services")).status == 401
        assert await node.get("catalog/services", X_Consul_Token=token) == {}
        assert await node.get("catalog/services", Authorization=f"Bearer {token}") == {}
        for header in ({"X_Consul_Token": "wrong"}, {"X_Consul_Token": token, "Authorization": "Bearer wrong"}):
            assert (await node.running.ask("GET", "/v1/catalog/services", **header)).status == 401
        told = await node.running.ask("PUT", "/v1/agent/service/register", {"Name": "x"}, X_Consul_Token=token)
        assert told.status == 403
        # What is ready is for who may have it.
        assert await node.get("health/service/web", X_Consul_Token=token) == []
        assert (await node.running.ask("GET", "/v1/health/service/web")).status == 401


async def test_a_wrong_token_costs_once_also_where_the_answer_is_at_hand(tmp_path: Path) -> None:
    async with consul(tmp_path) as node:
        await node.register("web", *WEB)
        assert await node.ids("web") == ["web-1", "web-2"]
        Tokens(tmp_path).create("reader", AccessLevel.READ, 1)
        wrong = [await node.running.ask("GET", "/v1/health/service/web", x_consul_token="wrong") for _ in range(10)]
        assert [answer.status for answer in wrong] == [401] * 10


@pytest.mark.parametrize("owner", ["nobody", "web@me"])
async def test_an_owner_that_isnt_known_is_told_at_the_start(tmp_path: Path, owner: str) -> None:
    settings = HttpSettings(consul=ConsulSettings(owner=owner))
    with pytest.raises(Misconfigured, match=r"http\.consul\.owner"):
        async with consul(tmp_path, settings):
            pass


async def test_datacenters_are_of_whom_the_aliases_mean_by_then(tmp_path: Path) -> None:
    settings = Settings(http=HttpSettings(consul=ConsulSettings(owner="acme")), names={"acme": ACME.peer_id})
    async with running_server(
        tmp_path,
        HttpSettings(listen="127.0.0.1:0", consul=settings.http.consul),
        settings.names,
        services=lambda own, registered: SettingsOfServices(lambda: settings, own, registered=registered.all),
    ) as running:
        node = Consul(running)
        await node.register("web", *WEB)
        asked = ("catalog/services?dc=acme", "catalog/service/web?dc=acme", "health/service/web")
        assert [await node.get(path) for path in asked] == [{}, [], []]
        assert await node.get("catalog/datacenters") == ["aqua", "acme", "me"]

        settings = msgspec.structs.replace(settings, names={"acme": node.me, "Shop": ACME.peer_id})
        told = await running.ask("POST", "/v1/aqua/agent/reload")
        assert told.result["aliases"] == ["Shop", "acme"]
        assert await node.get("catalog/datacenters") == ["aqua", "acme", "me", "shop"]
        assert await node.get("catalog/services?dc=acme") == {"web": ["V1", "blue", "v2"]}
        for path in ("catalog/service/web?dc=acme", "health/service/web?dc=acme", "health/service/web"):
            assert len(await node.get(path)) == 2, path
        assert await node.get("health/service/web?dc=shop") == []
        assert (await running.ask("GET", "/v1/aqua/resources/web%40acme")).result["name"] == "web@acme"

        settings = msgspec.structs.replace(settings, names={"acme": "nobody"})
        assert (await running.ask("POST", "/v1/aqua/agent/reload")).status == 400
        assert len(await node.get("health/service/web?dc=acme")) == 2, "what is wrong changes nothing"
        settings = msgspec.structs.replace(settings, names={})
        assert (await running.ask("POST", "/v1/aqua/agent/reload")).result["aliases"] == ["Shop", "acme"]
        gone = await running.ask("GET", "/v1/health/service/web?dc=acme")
        assert (gone.status, b"is no alias of an owner that this node knows" in gone.body) == (400, True)
        assert len(await node.get("health/service/web")) == 2, "the default one stays that of whom its word meant"
