"""What programs register through Consul's agent is registered and checked, and is still after a restart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from aqua_compat.http.consul.local_agent import FILE
from tests.unit.aqua_compat.http.consul.agents import running_agent
from tests.unit.aqua_compat.http.running import Answered, Running

WEB = {
    "ID": "web-1", "Name": "web", "Tags": ["v2"], "Address": "192.0.2.1", "Port": 80,
    "Meta": {"zone": "eu", "rack": ""}, "Weights": {"Passing": 7, "Warning": 1},
    "Check": {"CheckID": "alive", "Name": "is alive", "TTL": "30s"},
    "EnableTagOverride": False, "Proxy": None, "Kind": "",
}  # fmt: skip


async def put(running: Running, path: str, body: object = None) -> Answered:
    return await running.ask("PUT", f"/v1/agent/{path}", body)


async def get(running: Running, path: str) -> Any:
    return (await running.ask("GET", f"/v1/{path}")).json()


async def came(running: Running, service: str, count: int) -> list[Any]:
    """The instances of a service, once there are so many."""
    index = 0
    while True:
        answer = await running.ask("GET", f"/v1/health/service/{service}?index={index}&wait=30s")
        if len(answer.json()) == count:
            return list(answer.json())
        index = int(answer.headers["x-consul-index"])


async def test_what_is_registered_is_there_for_others_checked_and_kept(tmp_path: Path) -> None:
    folder, files = tmp_path / "node", tmp_path / "services"
    files.mkdir()
    (files / "db.toml").write_text('[[service]]\nname = "db"\nport = 5432\n')
    async with running_agent(folder, files) as running:
        assert (await put(running, "service/register?replace-existing-checks=true", WEB)).status == 200
        [entry] = await came(running, "web", 1)
        assert (entry["Service"]["ID"], entry["Service"]["Port"], entry["Service"]["Meta"]) == (
            "web-1",
            80,
            {"zone": "eu", "rack": ""},
        )
        assert sorted(await get(running, "agent/services")) == ["db", "web-1"]
        assert (await get(running, "agent/service/web-1"))["Weights"] == {"Passing": 7, "Warning": 7}
        assert (await get(running, "agent/checks"))["service:web-1"]["Name"] == "alive"

        for of, expression, told in (
            ("services", "Service==web", ["web-1"]), ("services", "v2+not+in+Tags", ["db"]),
            ("services", "Meta.zone==us", []), ("checks", "Name==alive+and+Status!=passing", ["service:web-1"]),
            ("checks", "Status==passing", []),
        ):  # fmt: skip
            assert sorted(await get(running, f"agent/{of}?filter={expression}")) == told, expression
            assert (await running.ask("GET", f"/v1/agent/{of}?filter=nothing")).status == 400

        health = "agent/health/service/name/web"
        for verb, status, state in (
            ("", 503, "critical"), ("pass", 200, "passing"), ("warn", 429, "warning"), ("fail", 503, "critical"),
        ):  # fmt: skip
            if verb:
                assert (await put(running, f"check/{verb}/alive?note=so%20it%20is")).status == 200
            answer = await running.ask("GET", f"/v1/{health}")
            assert (answer.status, answer.json()[0]["AggregatedStatus"]) == (status, state)
        update = {"Status": "passing", "Output": "fine"}
        assert (await put(running, "check/update/service:web-1", update)).status == 200
        text = await running.ask("GET", "/v1/agent/health/service/id/web-1?format=text")
        assert (text.status, text.body) == (200, b"passing")
        assert (await running.ask("GET", "/v1/agent/health/service/name/none")).status == 404

        second = {"ID": "second", "Name": "second", "ServiceID": "web-1", "TTL": "5m"}
        assert (await put(running, "check/register", second)).status == 200
        assert sorted(await get(running, "agent/checks")) == ["service:web-1:1", "service:web-1:2"]
        assert (await running.ask("GET", f"/v1/{health}")).status == 503
        assert (await put(running, "check/deregister/second")).status == 200
        assert (await running.ask("GET", f"/v1/{health}")).status == 200
        await refuses(running)
        bare = {"Name": "bare", "Check": {"Notes": "", "DeregisterCriticalServiceAfter": None}}
        assert (await put(running, "service/register", bare)).status == 200
        assert (await put(running, "service/deregister/bare")).status == 200

    async with running_agent(folder, files) as running:  # a restart
        assert sorted(await get(running, "agent/services")) == ["db", "web-1"]
        await came(running, "web", 1)
        assert (await put(running, "service/deregister/web-1")).status == 200
        assert await came(running, "web", 0) == []
        assert await get(running, "agent/checks") == {}
    async with running_agent(folder, files) as running:
        assert sorted(await get(running, "agent/services")) == ["db"]


async def test_whoever_reports_to_a_check_goes_on_when_another_one_comes_or_goes(tmp_path: Path) -> None:
    async with running_agent(tmp_path / "node", tmp_path / "services") as running:
        other = {"ID": "api-1", "Name": "api", "Check": {"CheckID": "service:web-1", "TTL": "30s"}}
        for body in (other, WEB):
            assert (await put(running, "service/register", body)).status == 200
        second = {"Name": "second", "ServiceID": "web-1", "TTL": "5m"}
        assert (await put(running, "check/register", second)).status == 200
        assert (await put(running, "check/pass/service:web-1")).status == 200
        told = {check_id: check["Status"] for check_id, check in (await get(running, "agent/checks")).items()}
        assert told == {"service:web-1:1": "passing", "service:web-1:2": "critical", "service:api-1": "critical"}
        assert (await put(running, "check/deregister/second")).status == 200
        assert (await put(running, "check/warn/service:web-1:1")).status == 200
        assert (await get(running, "agent/checks"))["service:web-1"]["Status"] == "warning"


async def test_checks_stay_that_a_service_registered_again_does_not_replace(tmp_path: Path) -> None:
    async def names(running: Running) -> list[str]:
        return sorted(check["Name"] for check in (await get(running, "agent/checks")).values())

    def web(*checks: dict[str, str]) -> dict[str, Any]:
        return {"ID": "web-1", "Name": "web", "Port": 80, "Checks": [{"TTL": "30s", **check} for check in checks]}

    folder, files = tmp_path / "node", tmp_path / "services"
    own = {"CheckID": "own", "Name": "of its own", "ServiceID": "web-1", "TTL": "30s"}
    async with running_agent(folder, files) as running:
        for body in (web({"Name": "first"}, {"Name": "second"}, {"CheckID": "third"}), web({"Name": "first"})):
            assert (await put(running, "service/register", body)).status == 200
        assert await names(running) == ["first", "second", "third"], "of other places, and of other ids"
        assert (await put(running, "check/register", own)).status == 200
        assert (await put(running, "check/pass/own")).status == 200
    async with running_agent(folder, files) as running:  # a restart
        assert (await put(running, "check/pass/own")).status == 200
        assert (await put(running, "service/register", web({"Name": "renamed"}, {}))).status == 200
        assert await names(running) == ["own", "renamed", "third", "ttl"], "replaced by their places"
        told = {check["Name"]: check["Status"] for check in (await get(running, "agent/checks")).values()}
        assert told["own"] == "passing", "a check that stays is as it was"
        assert (await put(running, "check/register", own | {"CheckID": "ttl"})).status == 200
        assert (await put(running, "service/register", web())).status == 200
        assert await names(running) == ["own", "renamed", "third", "ttl", "ttl-2"], "a name that is given counts"
        assert (await put(running, "check/deregister/third")).status == 200
        again = "service/register?replace-existing-checks="
        assert (await put(running, again + "false", web({}))).status == 200
        assert await names(running) == ["own", "ttl", "ttl-2", "ttl-3"]
        assert (await put(running, again + "true", web({"CheckID": "only"}))).status == 200
        assert await names(running) == ["only"]


async def test_of_files_without_places_checks_are_replaced_by_where_they_stand(tmp_path: Path) -> None:
    folder, files = tmp_path / "node", tmp_path / "services"
    async with running_agent(folder, files) as running:
        assert (await put(running, "service/register", WEB)).status == 200
    file = folder / FILE
    kept = json.loads(file.read_text())
    kept["service"][0]["check"].append({"name": "second", "ttl": 30})
    file.write_text(json.dumps({"service": kept["service"]}))
    async with running_agent(folder, files) as running:
        assert (await put(running, "service/register", WEB | {"Check": {"Name": "new", "TTL": "30s"}})).status == 200
        assert sorted(check["Name"] for check in (await get(running, "agent/checks")).values()) == ["new", "second"]


async def refuses(running: Running) -> None:
    before = await get(running, "agent/services")
    script = {"Name": "x", "Check": {"Args": ["/bin/true"], "Interval": "10s"}}
    for path, body, status, told in (
        ("service/register", {}, 400, "Missing service name"),
        ("service/register", {"Name": "x", "Port": "80"}, 400, "port"),
        ("service/register", {"Name": "x", "Port": 99999}, 400, "port"),
        ("service/register", [1], 400, "JSON object"),
        ("service/register", b"{", 400, "Request decode failed"),
        *(
            ("service/register", b'{"Name":"x","Proxy":' + b'{"a":' * depth + b"1" + b"}" * (depth + 1), 400, "nested")
            for depth in (17, 600, 900)
        ),
        ("service/register", {"Name": "x", "Meta": {"x": [[]]}}, 400, "metadata"),
        ("service/register", {"Name": "x", "Meta": {"x": "x" * 70_000}}, 413, "at most"),
        ("service/register", script, 400, "service files alone"),
        ("service/register", {"Name": "x", "Check": {"TTL": "soon"}}, 400, "duration"),
        ("service/register", {"Name": "x", "Checks": [{"TTL": "1s", "TCP": "a:1"}]}, 400, "exactly one"),
        ("service/register", {"Name": "db"}, 400, "defined in"),
        ("service/deregister/db", None, 400, "defined in"),
        ("service/deregister/none", None, 404, "Unknown service ID"),
        *(
            ("service/register", {"Name": "x"} | wrong, 400, told)
            for wrong, told in (
                ({"Name": ""}, "Missing service name"), ({"Name": None, "ID": "x"}, "Missing service name"),
                ({"Name": 5}, "name"), ({"ID": ["x"]}, "id"), ({"Tags": "v1"}, "tags"), ({"Tags": [1]}, "tags"),
                ({"Port": -1}, "port"), ({"Port": 80.5}, "port"), ({"Port": True}, "port"),
                ({"Weights": {"Passing": -1}}, "weight"), ({"Weights": 1}, "weights"), ({"Meta": ["a"]}, "metadata"),
                ({"Address": "0.0.0.0"}, "Invalid service address"), ({"Address": ["::1"]}, "address"),
                ({"Address": "a b"}, "address"), ({"Check": "alive"}, "object"), ({"Checks": [{}]}, "checks nothing"),
                ({"Checks": {"TTL": "1s"}}, "list"), ({"Checks": [None]}, "object"),
                ({"Check": {"TTL": "-1s"}}, "duration"), ({"Check": {"TTL": 5}}, "duration"),
                ({"Check": {"TTL": "1s", "Status": "fine"}}, "Bad check status"),
                ({"Checks": [{"TTL": "1s", "Status": ["passing"]}]}, "Bad check status"),
                ({"Check": {"TCP": "a:99999", "Interval": "1s"}}, "tcp"),
                ({"Check": {"HTTP": "http://a", "Header": {"a": "b"}}}, "list"),
                ({"Checks": [{"TTL": "1s"}, {"HTTP": "http://a"}]}, "Invalid check: service 1, check 2, interval: "),
                ({"Check": {"HTTP": "http://a", "Interval": ""}}, "Interval must be > 0 for Script, HTTP"),
                ({"Check": {"TCP": "a:1", "Interval": "0s"}}, "Interval must be > 0"),
                ({"Check": {"GRPC": "a:1", "Interval": None}}, "Interval must be > 0"),
                ({"Check": {"Args": ["/bin/true"]}}, "Interval must be > 0"),
                ({"Check": {"TTL": "1s", "Interval": "1s"}}, "Interval and TTL cannot both be specified"),
            )
        ),
        *(
            ("check/register", {"ServiceID": "web-1", "TTL": "1s"} | wrong, 400, told)
            for wrong, told in (
                ({}, "Missing check name"), ({"CheckID": "x"}, "Missing check name"),
                ({"Name": ""}, "Missing check name"), ({"Name": None, "ID": "x"}, "Missing check name"),
                ({"Name": 5}, "name"), ({"Name": "x", "CheckID": [1]}, "name"),
                ({"Name": "x", "TTL": ""}, "checks nothing"), ({"Name": "x", "TTL": "0s"}, "ttl"),
                ({"Name": "x", "TTL": None, "HTTP": "http://a"}, "Invalid check: "),
                ({"Name": "x", "Status": "fine"}, "Bad check status"), ({"Name": "x", "ServiceID": 5}, "ServiceID"),
            )
        ),
        ("check/register", {"ServiceID": "none", "TTL": "1s"}, 400, "Missing check name"),
        ("check/register", {"Name": "x", "TTL": "1s"}, 400, "ServiceID is missing"),
        ("check/register", {"Name": "x", "TTL": "1s", "ServiceID": "none"}, 404, "does not exist"),
        ("check/pass/none", None, 404, "Unknown check ID"),
        ("check/update/alive", {"Status": "fine"}, 400, "Status is one of"),
        ("check/update/alive", {"Status": ["passing"]}, 400, "Status is one of"),
        ("check/update/alive", {"Status": "passing", "Output": 5}, 400, "Status is one of"),
        ("check/deregister/none", None, 404, "Unknown check ID"),
    ):  # fmt: skip
        answer = await put(running, path, body)
        assert answer.status == status, (path, body, answer)
        assert told in answer.body.decode(), (path, body, answer)
    assert await get(running, "agent/services") == before


async def test_a_file_wins_over_what_was_registered_before_and_nothing_registered_keeps_the_node_from_starting(
    tmp_path: Path,
) -> None:
    folder, files = tmp_path / "node", tmp_path / "services"
    files.mkdir()
    (files / "db.toml").write_text('[[service]]\nname = "db"\nport = 5432\n')
    shadow = {"ID": "shadow", "Name": "shadow", "Port": 1, "Check": {"AliasService": "db"}}
    of_shadow = {"ID": "second", "Name": "second", "Port": 2, "Check": {"AliasService": "shadow"}}
    async with running_agent(folder, files) as running:
        for body in (WEB, shadow, of_shadow):
            assert (await put(running, "service/register", body)).status == 200
        assert sorted(await get(running, "agent/services")) == ["db", "second", "shadow", "web-1"]
        nobodys = await put(running, "service/register", WEB | {"ID": "web-2", "Check": {"AliasService": "nobody"}})
        assert (nobodys.status, "no service with the id 'nobody'" in nobodys.body.decode()) == (400, True)
    (files / "db.toml").unlink()
    file = files / "web.toml"
    file.write_text('[[service]]\nid = "web-1"\nname = "web"\naddress = "192.0.2.9"\nport = 81\n')
    async with running_agent(folder, files) as running:
        services = await get(running, "agent/services")
        assert sorted(services) == ["web-1"], "what is an alias of what went doesn't count meanwhile"
        assert services["web-1"]["Address"] == "192.0.2.9", "the file wins"
        refused = await put(running, "service/register", WEB)
        assert (refused.status, f"is defined in {file}" in refused.body.decode()) == (400, True)
    file.unlink()
    (files / "db.toml").write_text('[[service]]\nname = "db"\nport = 5432\n')
    async with running_agent(folder, files) as running:
        assert sorted(await get(running, "agent/services")) == ["db", "second", "shadow", "web-1"], "all are back"
