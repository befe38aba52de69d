"""Every operation does what its description says, on a node that runs; what is wrong is a problem with a code."""

from __future__ import annotations

import base64
import gc
import json
import ssl
import time
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import trio
from openapi_spec_validator import OpenAPIV31SpecValidator

from aqua_compat.agent.settings import AgentSettings
from aqua_compat.api.full_node import identity_in
from aqua_compat.cli.service_source import SettingsOfServices
from aqua_compat.http.message import AccessLevel
from aqua_compat.http.openapi import description
from aqua_compat.http.tokens import Tokens
from aqua_compat.settings import HttpSettings, Settings
from overlay.identity import Identity
from registry.model.decoding import decode_state
from registry.model.signing import key_id_of
from registry.model.values import Key, Record, RecordMetadata, encode
from registry.protocol.messages import Item
from tests.attacks.http_fuzz import Turns
from tests.unit.aqua_compat.http.running import Answered, Running, running_server

STRANGER = Identity.from_seed(bytes(range(32)))


class Described:
    """The description, and what of it was tried; answers are held to it."""

    def __init__(self, running: Running, document: dict[str, Any]) -> None:
        self._running = running
        self._document = document
        self.tried: set[str] = set()

    async def call(self, operation_id: str, body: object = None, query: str = "", **path: str) -> Any:
        for template, methods in self._document["paths"].items():
            for method, operation in methods.items():
                if operation["operationId"] == operation_id:
                    answer = await self._running.ask(method.upper(), template.format(**path) + query, body)
                    self._check(operation, answer)
                    self.tried.add(operation_id)
                    if not answer.headers["content-type"].startswith("application/json"):
                        return answer.body.decode()
                    told = answer.json()
                    return told["result"] if isinstance(told, dict) and "result" in told else told
        raise AssertionError(f"no operation {operation_id}")

    def _check(self, operation: dict[str, Any], answer: Answered) -> None:
        assert str(answer.status) in operation["responses"], answer.body
        content = operation["responses"][str(answer.status)]["content"]
        assert answer.headers["content-type"] in content
        is_json = answer.headers["content-type"].startswith("application/json")
        value = answer.json() if is_json else answer.body.decode()
        self.validate(content[answer.headers["content-type"]]["schema"], value)

    def validate(self, schema: dict[str, Any], value: object) -> None:
        whole = {**schema, "components": self._document["components"]}
        jsonschema.Draft202012Validator(whole).validate(value)

    def operations(self) -> dict[str, dict[str, Any]]:
        return {each["operationId"]: each for path in self._document["paths"].values() for each in path.values()}


def signed_key(label: str) -> Key:
    key = Key(label, STRANGER.peer_id, int(time.time()), b"", "", b"")
    return Key(label, key.owner_peer_id, key.timestamp_created, b"", "", STRANGER.sign(key.signed_bytes()))


def signed_metadata(key: Key, host: str) -> RecordMetadata:
    fields = (key.id, STRANGER.peer_id, host, int(time.time()), b"", "theirs", (), ())
    unsigned = RecordMetadata(*fields, issuer_signature=b"")
    return RecordMetadata(*fields, issuer_signature=STRANGER.sign(unsigned.signed_bytes()))


def text_of(value: Key | Record | RecordMetadata) -> str:
    return base64.b64encode(encode(value)).decode()


def test_the_description_is_openapi() -> None:
    OpenAPIV31SpecValidator(json.loads(description())).validate()


async def test_every_operation_answers_as_it_is_described(tmp_path: Path) -> None:
    own = identity_in(tmp_path / "node").peer_id
    async with running_server(tmp_path / "node", names={"acme": own}) as running:
        served = await running.ask("GET", "/v1/aqua/openapi.json")
        assert served.body == description()
        api = Described(running, served.json())
        await api.call("openapi")
        assert await api.call("healthz") == {"alive": True}
        assert await api.call("readyz") == {"ready": True, "not_ready": []}
        assert "aqua_ready 1.0" in await api.call("metrics")

        made = await api.call("create_resource", {"label": "web"})
        resource_id = made["resource_id"]
        assert made == await api.call("resource_id", query="?label=web")
        assert (await api.call("show_resource", resource_id=resource_id))["owner_peer_id"] == own
        assert (await api.call("policy", resource_id=resource_id))["policy"] is None
        assert await api.call("resource_peers", resource_id=resource_id) == [own]
        assert await api.call("peers") == []
        seen = await api.call("network", query="?resource=web%40me")
        assert [each["name"] for each in seen["owners"]] == ["me", "acme"]
        assert (seen["resource"]["resource_id"], seen["resource"]["keepers"]) == (resource_id, [own])
        assert (await api.call("network"))["resource"] is None
        assert (await api.call("status"))["peer_id"] == own

        of = {"resource_id": resource_id}
        assert await api.call("register", {"value": "tcp://x", "service_id": "s"}, **of) == {"success": True}
        [record] = await api.call("resolve", **of)
        assert record["metadata"]["value"] == "tcp://x"
        assert await api.call("resolve", query=f"?trust={STRANGER.peer_id}&ack=1&timeout=2", **of) == []
        assert len(await api.call("resolve", query=f"?trust={STRANGER.peer_id}&trust={own}", **of)) == 1
        assert len(await api.call("resolve", query="?reachable=true", **of)) == 1
        assert [each["id"] for each in record["instances"]] == ["1"]
        [known] = await api.call("resolve", query="?all=true", **of)
        assert (known["record"], known["health"]["state"]) == (record, "passing")
        assert await api.call("resolve", query="?tag=v1", **of) == []
        [told] = await api.call("resolve", query="?all=true&reachable=false", resource_id="web%40me")
        assert told == known
        assert (await api.call("show_resource", resource_id="web@acme"))["id"] == resource_id
        assert (await api.call("show_resource", resource_id=f"web@{own}"))["name"] == "web@acme"
        assert [each["what"] for each in await api.call("explain", **of)] == ["stored", "stored"]
        assert await api.call("http_sd", query="?resource=web@acme&resource=nothing@me&tag=v1") == []

        ended = {"resource_id": resource_id, "peer_id": own, "instance": ""}
        full = {"state": "warning", "note": "hot\n", "ttl": 3600}
        assert await api.call("report_health", full, peer_id="me", **of) == ended | {"state": "warning"}
        [told] = await api.call("resolve", query="?all=true", **of)
        assert (told["health"]["state"], told["health"]["note"]) == ("warning", "hot ")
        said = await api.call("report_health", {"state": "critical"}, resource_id="web%40me", peer_id=own)
        assert said == ended | {"state": "critical"}
        assert await api.call("resolve", **of) == []
        await api.call("report_health", {"state": "passing", "ttl": 0}, peer_id="me", **of)
        assert len(await api.call("resolve", **of)) == 1

        # A client that holds its own key: the node hosts for it, and passes on what it signed.
        key = signed_key("theirs")
        metadata = signed_metadata(key, own)
        written = await api.call("write", {"key_or_tombstone": text_of(key)})
        assert written["resource_id"] == key.id == key_id_of("theirs", STRANGER.peer_id)
        hosted = await api.call("countersign", {"key": text_of(key), "metadata": text_of(metadata)})
        record = decode_state(base64.b64decode(hosted["record"]))
        await api.call("write", {"key_or_tombstone": text_of(key), "state": text_of(record)})
        [theirs] = await api.call("resolve", resource_id=key.id)
        assert theirs["metadata"]["issued_by"] == STRANGER.peer_id

        listed = await api.call("list_resources", owner="acme")
        assert (listed["after"], [each["name"] for each in listed["resources"]]) == (None, ["web@acme"])
        assert await api.call("create_resource", {"label": "b web"}) is not None
        first = await api.call("list_resources", query="?limit=1", owner="me")
        assert (first["after"], first["resources"][0]["label"]) == ("b web", "b web")
        rest = await api.call("list_resources", query="?ack=1&timeout=3&after=b%20web", owner=own)
        assert (rest["after"], [each["resource_id"] for each in rest["resources"]]) == (None, [resource_id])

        ended = await api.call("unregister", peer_id="me", **of)
        assert ended == {"success": True, "was_registered": True}
        gone = await running.ask("POST", f"/v1/aqua/resources/{resource_id}/records/me/health", {"state": "passing"})
        assert (gone.status, gone.json()["code"]) == (403, "hosting"), gone
        assert "nothing is registered here by " in gone.json()["detail"]
        assert not (await api.call("unregister", peer_id=own, **of))["was_registered"]
        assert await api.call("resolve", **of) == []
        assert await api.call("remove_resource", **of) == {"removed": resource_id}
        assert [each["standing"] for each in (await api.call("list_resources", owner="me"))["resources"]] == [
            "live",
            "removed",
        ]
        assert api.tried == set(api.operations()) - {"watch"} - OF_AGENTS - CALLS_AND_POLICIES


CALLS_AND_POLICIES = {"services", "call_peer", "call", "change_policy", "presence"}


class Adder:
    """What a test serves."""

    async def add(self, one: int, other: int) -> int:
        return one + other

    async def fail(self) -> None:
        raise ValueError("as it was to")


async def test_services_are_called_and_policies_changed_as_it_is_described(tmp_path: Path) -> None:
    async with running_server(tmp_path / "node", services_of=lambda own: own.serve("adder", Adder(), None)) as running:
        api = Described(running, json.loads(description()))
        me = running.node.peer.peer_id
        of = {"resource_id": (await api.call("create_resource", {"label": "sums"}))["resource_id"]}
        assert await api.call("register", {"service_id": "adder"}, **of) == {"success": True}
        assert "adder" in await api.call("services", peer_id="me")
        told = await api.call("presence", peer_id="me")
        untold = {"up": True, "up_or_down_for": None, "accusers": [], "stopped": False}
        assert told == {"peer_id": me, "known": True, **untold}
        assert (await api.call("presence", query="?timeout=0.1", peer_id=STRANGER.peer_id))["up"]

        adding = {"function": "add", "arguments": [1, 2]}
        assert await api.call("call_peer", {"service_id": "adder", **adding}, peer_id=me) == 3
        assert await api.call("call", adding, **of) == 3
        assert await api.call("call", {**adding, "trust": [me], "strategy": "weighted"}, **of) == 3
        assert await api.call("call", {**adding, "all": True}, **of) == [{"peer_id": me, "result": 3, "error": None}]
        [failed] = await api.call("call", {"function": "fail", "all": True}, **of)
        assert (failed["result"], failed["error"]) == (None, "ValueError: as it was to")

        deny = {"edit": "deny", "peer_id": STRANGER.peer_id}
        edits = [{"edit": "close"}, {"edit": "allow", "peer_id": me}, deny, {**deny, "host": me, "until": 5}]
        changed = (await api.call("change_policy", {"edits": edits}, **of))["policy"]
        assert (changed["open"], changed["allow"]) == (False, [me])
        assert {(each["host"], each["until"]) for each in changed["deny"]} == {(None, None), (me, 5)}
        edits = [{"edit": "open"}, {**deny, "edit": "lift"}, {**deny, "host": me, "edit": "drop-denial"}]
        edits.append({"edit": "longest-chain", "number": 1})
        changed = (await api.call("change_policy", {"edits": edits, "factor": 1, "timeout": 5}, **of))["policy"]
        assert (changed["open"], [each["host"] for each in changed["deny"]]) == (True, [None])
        assert changed["longest_chain"] == 1
        assert (await api.call("policy", **of))["policy"] == changed

        # Another's record on this node itself is ended where its issuer is named, up to a time if one is given.
        of = {"resource_id": (await api.call("create_resource", {"label": "board"}))["resource_id"]}
        board = await running.node.registry.get_resource(of["resource_id"])
        assert board.key is not None
        given = {"key": text_of(board.key), "metadata": text_of(signed_metadata(board.key, me))}
        hosted = await api.call("countersign", given)
        await api.call("write", {"key_or_tombstone": text_of(board.key), "state": hosted["record"]})
        end = int(time.time()) + 600
        query = f"?issuer={STRANGER.peer_id}&until={end}"
        ended = await api.call("unregister", query=query, peer_id="me", **of)
        denied = {"denied": [STRANGER.peer_id], "host": me, "until": end}
        assert ended == {"success": True, "was_registered": True, **denied}
        assert await api.call("resolve", **of) == []
        assert not (await api.call("unregister", query=query, peer_id="me", **of))["was_registered"]
        assert api.tried >= CALLS_AND_POLICIES


OF_STRANGER = {"peer_id": STRANGER.peer_id}
FAILING: list[tuple[str, dict[str, Any], int, str, str]] = [
    ("peers/me/calls", {"service_id": "no", "function": "f"}, 404, "no-service", "final"),
    ("peers/me/calls", {"service_id": "adder", "function": "f"}, 404, "no-function", "final"),
    ("peers/me/calls", {"service_id": "adder", "function": "add", "arguments": [1]}, 422, "bad-arguments", "final"),
    ("peers/me/calls", {"service_id": "adder", "function": "fail"}, 502, "raised", "final"),
    ("peers/me/calls", {"service_id": "", "function": "f"}, 400, "invalid", "final"),
    ("peers/me/calls", {"service_id": "s", "function": "f", "via": ["?"]}, 400, "invalid", "final"),
    ("peers/x/calls", {"service_id": "s", "function": "f"}, 400, "invalid", "final"),
    (f"peers/{STRANGER.peer_id}/calls", {"service_id": "s", "function": "f", "timeout": 0.3}, 504, "unreachable",
     "network"),
    ("resources/web@me/calls", {"function": "add"}, 503, "no-provider", "load"),
    ("resources/web@me/calls", {"function": "add", "strategy": "best"}, 400, "invalid", "final"),
    ("resources/web@me/policy", {"edits": []}, 400, "invalid", "final"),
    ("resources/web@me/policy", {"edits": [{"edit": "allow"}]}, 400, "invalid", "final"),
    ("resources/web@me/policy", {"edits": [OF_STRANGER | {"edit": "open"}]}, 400, "invalid", "final"),
    ("resources/web@me/policy", {"edits": [OF_STRANGER | {"edit": "lift"}]}, 400, "invalid", "final"),
    ("resources/web@me/policy", {"edits": [{"edit": "longest-chain"}]}, 400, "invalid", "final"),
    ("resources/web@me/policy", {"edits": [{"edit": "longest-chain", "number": 4}]}, 400, "invalid", "final"),
    ("resources/web@me/policy", {"edits": [{"edit": "close", "number": 1}]}, 400, "invalid", "final"),
    ("resources/web@me/policy", {"edits": [OF_STRANGER | {"edit": "allow", "until": 1}]}, 400,
     "invalid", "final"),
    ("resources/no@me/policy", {"edits": [{"edit": "open"}], "timeout": 0.5}, 404, "key-not-exists", "asked"),
]  # fmt: skip


async def test_calls_and_policy_changes_that_fail_say_why(tmp_path: Path) -> None:
    async with running_server(tmp_path / "node", services_of=lambda own: own.serve("adder", Adder(), None)) as running:
        assert (await running.ask("POST", "/v1/aqua/resources", {"label": "web"})).status == 201
        for path, body, status, code, kind in FAILING:
            method = "PATCH" if path.endswith("policy") else "POST"
            told = (await running.ask(method, f"/v1/aqua/{path}", body)).json()
            assert (told["status"], told["code"], told["kind"]) == (status, code, kind), (path, body, told)


async def test_whose_id_a_label_has_is_asked_by_alias_or_peer_id(tmp_path: Path) -> None:
    other = Identity.from_seed(bytes(32)).peer_id
    async with running_server(tmp_path, names={"acme": other}) as running:
        own = running.node.peer.peer_id
        for word, owner in (("", own), ("&owner=me", own), ("&owner=acme", other), (f"&owner={other}", other)):
            asked = await running.ask("GET", f"/v1/aqua/resource-id?label=web{word}")
            assert asked.result["resource_id"] == key_id_of("web", owner), word


OF_AGENTS = {"reload", "checks", "report_check", "lend"}
TWO_CHECKS = "".join(f'[[service.check]]\nname = "{name}"\nttl = 60\n' for name in "ab")


async def test_every_operation_on_this_machines_services_answers_as_it_is_described(tmp_path: Path) -> None:
    folder = tmp_path / "services"
    folder.mkdir()
    file = folder / "web.toml"
    file.write_text('[[service]]\nname = "web"\n[[service.check]]\nttl = 60\n')
    settings = Settings(agent=AgentSettings(services=str(folder)))
    async with running_server(
        tmp_path / "node",
        services=lambda own, registered: SettingsOfServices(lambda: settings, own, registered=registered.all),
    ) as running:
        api = Described(running, (await running.ask("GET", "/v1/aqua/openapi.json")).json())
        [shown] = await api.call("checks")
        assert (shown["service"], shown["check"], shown["kind"], shown["state"]) == ("web", "ttl", "ttl", "critical")
        said = await api.call("report_check", {"state": "warning", "note": "hot"}, check="web")
        assert said == {"service": "web", "instance": "web", "check": "ttl", "state": "warning"}
        assert [(each["state"], each["note"]) for each in await api.call("checks")] == [("warning", "hot")]
        assert await api.call("reload") == {"added": [], "changed": [], "removed": [], "aliases": []}

        file.write_text(f'[[service]]\nname = "db"\n{TWO_CHECKS}')
        assert await api.call("reload") == {"added": ["db"], "changed": [], "removed": ["web"], "aliases": []}
        for name, told in (
            ("web", "'web' is no service with a check of kind ttl; of these there are: db/db/a, db/db/b"),
            ("db", "'db' is several checks of kind ttl; name one of db/db/a, db/db/b"),
        ):
            refused = await running.ask("POST", f"/v1/aqua/agent/checks/{name}", {"state": "passing"})
            assert (refused.status, refused.json()["detail"]) == (404, told)
        for named in ("db%2Fa", "db%2Fdb%2Fb"):
            await api.call("report_check", {"state": "passing"}, check=named)
        assert {each["state"] for each in await api.call("checks")} == {"passing"}
        unknown = await running.ask("POST", "/v1/aqua/agent/checks/db%2Fa", {"state": "well"})
        assert (unknown.status, unknown.json()["code"]) == (400, "invalid")

        settings = msgspec.structs.replace(settings, names={"acme": running.node.peer.peer_id})
        file.write_text('[[service]]\nname = "db"\nowner = "acme"\n' + TWO_CHECKS)
        assert (await api.call("reload"))["aliases"] == ["acme"]

        file.write_text('[[service]]\nname = "db\n')
        wrong = await running.ask("POST", "/v1/aqua/agent/reload")
        assert (wrong.status, wrong.json()["code"]) == (422, "invalid")
        [error] = wrong.json()["errors"]
        assert error.startswith(f"{file}: isn't TOML: ")
        assert "(at line 2" in error
        assert len(await api.call("checks")) == 2
        lent = await running.ask(
            "POST", "/v1/aqua/agent/services", {"name": "a.toml", "text": '[[service]]\nid = "db"\n'}
        )
        assert lent.status == 422
        assert lent.json()["errors"] == ["a.toml, line 1: service 1: name isn't given, which it has to have"]
        assert api.tried == OF_AGENTS - {"lend"}


async def test_a_node_without_services_says_so(tmp_path: Path) -> None:
    async with running_server(tmp_path / "node") as running:
        for method, target in (("GET", "checks"), ("POST", "reload")):
            answer = await running.ask(method, f"/v1/aqua/agent/{target}")
            assert (answer.status, answer.json()["code"]) == (404, "path-unknown")
            assert "start it with --services DIR" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("method", "target", "body", "status", "code"),
    [
        ("GET", "/", None, 404, "path-unknown"),
        ("GET", "/v1/aqua/status/", None, 404, "path-unknown"),
        ("GET", "/v1/aqua/../aqua/status", None, 404, "path-unknown"),
        ("GET", "//v1/aqua/status", None, 404, "path-unknown"),
        ("GET", "/v1/aqua/resources/", None, 404, "path-unknown"),
        ("PUT", "/v1/aqua/status", None, 405, "method-unknown"),
        ("OPTIONS", "/v1/aqua/resources", None, 405, "method-unknown"),
        ("GET", "/v1/aqua/resources/nonsense", None, 400, "invalid"),
        ("GET", "/v1/aqua/resources/..%2f..%2fetc/records", None, 400, "invalid"),
        ("GET", "/v1/aqua/status?timeout=nan", None, 400, "invalid"),
        ("GET", "/metrics?x=1", None, 400, "invalid"),
        ("GET", "/v1/http_sd", None, 400, "invalid"),
        ("GET", "/v1/http_sd?resource=web@nobody", None, 400, "invalid"),
        ("GET", "/v1/aqua/status?timeout=1e9", None, 400, "invalid"),
        ("GET", "/v1/aqua/status?timeout=1&timeout=2", None, 400, "invalid"),
        ("GET", "/v1/aqua/status?tiemout=1", None, 400, "invalid"),
        ("GET", "/v1/aqua/resource-id", None, 400, "invalid"),
        ("GET", "/v1/aqua/resource-id?label=a&owner=nobody", None, 400, "invalid"),
        ("GET", "/v1/aqua/resource-id?label=a", {}, 400, "invalid"),
        ("GET", "/v1/aqua/resources/{unknown}/records?ack=-1", None, 400, "invalid"),
        ("GET", "/v1/aqua/resources/{unknown}/records?reachable=1", None, 400, "invalid"),
        ("GET", "/v1/aqua/resources/{unknown}/records?reachable=true&all=true", None, 400, "invalid"),
        ("GET", "/v1/aqua/resources/{unknown}/records?meta=zone", None, 400, "invalid"),
        ("GET", "/v1/aqua/owners/nobody/resources", None, 400, "invalid"),
        ("GET", "/v1/aqua/owners/me/resources?limit=0", None, 400, "invalid"),
        ("GET", "/v1/aqua/owners/me/resources?limit=257", None, 400, "invalid"),
        ("GET", f"/v1/aqua/owners/me/resources?after={'x' * 4097}", None, 400, "invalid"),
        ("GET", "/v1/aqua/owners/me/resources?ack=2", None, 503, "too-few-replicas"),
        ("GET", "/v1/aqua/resources/web/records", None, 400, "invalid"),
        ("GET", "/v1/aqua/resources/web@nobody/watch", None, 400, "invalid"),
        ("GET", "/v1/aqua/resources/web@me", None, 404, "key-not-exists"),
        ("GET", "/v1/aqua/resources/{unknown}/records", None, 404, "key-not-exists"),
        ("GET", "/v1/aqua/resources/{unknown}", None, 404, "key-not-exists"),
        ("DELETE", "/v1/aqua/resources/{unknown}", None, 404, "key-not-exists"),
        ("POST", "/v1/aqua/resources/{unknown}/records", {}, 404, "key-not-exists"),
        ("POST", "/v1/aqua/resources", None, 400, "invalid"),
        ("POST", "/v1/aqua/resources", b"{", 400, "invalid"),
        ("POST", "/v1/aqua/resources", b"[" * 100_000, 400, "invalid"),
        ("POST", "/v1/aqua/resources", {"label": 1}, 400, "invalid"),
        ("POST", "/v1/aqua/resources", {"label": "a", "colour": "red"}, 400, "invalid"),
        ("POST", "/v1/aqua/resources", {"label": "a" * 5000}, 400, "invalid"),
        ("POST", "/v1/aqua/resources", {"label": "a", "factor": 0}, 400, "invalid"),
        ("POST", "/v1/aqua/resources", {"label": "a", "timeout": 1e9}, 400, "invalid"),
        ("POST", "/v1/aqua/resources", {"label": "a", "factor": 5}, 503, "too-few-replicas"),
        ("GET", "/v1/aqua/resources/web@me/records/me/health", None, 405, "method-unknown"),
        ("POST", "/v1/aqua/resources/web@me/records/me/health", {}, 400, "invalid"),
        ("POST", "/v1/aqua/resources/web@me/records/you/health", {"state": "passing"}, 400, "invalid"),
        ("POST", "/v1/aqua/resources/web@me/records/me/health", {"state": "unknown"}, 400, "invalid"),
        ("POST", "/v1/aqua/resources/web@me/records/me/health", {"state": "passing", "ttl": -1}, 400, "invalid"),
        (
            "POST",
            "/v1/aqua/resources/web@me/records/me/health",
            {"state": "passing", "instance": "x" * 129},
            400,
            "invalid",
        ),
        (
            "POST",
            "/v1/aqua/resources/web@me/records/me/health",
            {"state": "passing", "note": "x" * 4097},
            400,
            "invalid",
        ),
        ("POST", "/v1/aqua/resources/web@me/records/me/health", {"state": "passing"}, 403, "hosting"),
        ("POST", "/v1/aqua/writes", {"key_or_tombstone": "?"}, 400, "invalid"),
        ("POST", "/v1/aqua/writes", {"key_or_tombstone": "AAAA"}, 400, "invalid"),
        ("POST", "/v1/aqua/writes", {"key_or_tombstone": "{unsigned}"}, 422, "key-signature"),
        ("POST", "/v1/aqua/host-signatures", {"key": "", "metadata": ""}, 400, "invalid"),
    ],
)
async def test_what_is_wrong_is_a_problem_with_a_code(
    method: str, target: str, body: object, status: int, code: str, one_server: Running
) -> None:
    key = signed_key("x")
    unsigned = Key(key.label, key.owner_peer_id, key.timestamp_created, b"", "", bytes(64))
    if isinstance(body, dict):
        body = {name: text_of(unsigned) if value == "{unsigned}" else value for name, value in body.items()}
    answer = await one_server.ask(method, target.replace("{unknown}", key_id_of("no", STRANGER.peer_id)), body)
    problem = answer.json()
    assert (answer.status, problem["code"]) == (status, code), problem
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["type"] == f"urn:aqua-registry:problem:{code}"
    assert problem["status"] == status
    assert problem["detail"]
    described = json.loads(description())
    Described(one_server, described).validate({"$ref": "#/components/schemas/Problem"}, problem)


@pytest.fixture
async def one_server(tmp_path: Path):
    async with running_server(tmp_path / "node") as running:
        yield running


async def test_only_a_token_that_may_write_writes(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    async with running_server(tmp_path) as running:
        read, write = tokens.create("r", AccessLevel.READ, 1), tokens.create("w", AccessLevel.WRITE, 1)
        body = {"label": "web"}
        assert (await running.ask("POST", "/v1/aqua/resources", body)).status == 401
        assert (await running.ask("POST", "/v1/aqua/resources", body, authorization=f"Bearer {read}")).status == 403
        assert (await running.ask("POST", "/v1/aqua/resources", body, authorization=f"Bearer {write}")).status == 201
        target, body = "/v1/aqua/resources/web@me/records/me/health", {"state": "critical"}
        assert (await running.ask("POST", target, body)).status == 401
        for token, code in ((read, "not-permitted"), (write, "hosting")):  # nothing is registered
            answer = await running.ask("POST", target, body, authorization=f"Bearer {token}")
            assert (answer.status, answer.json()["code"]) == (403, code)


async def test_a_large_resource_is_written_piece_by_piece_and_holds_nobody_up(tmp_path: Path) -> None:
    async with running_server(tmp_path) as running:
        made = await running.ask("POST", "/v1/aqua/resources", {"label": "large"})
        resource_id = made.result["resource_id"]
        target = f"/v1/aqua/resources/{resource_id}/records"
        assert (await running.ask("POST", target, {"value": "ü" * 32_000})).status == 201
        answer = await running.ask("GET", target)
        assert [len(each["metadata"]["value"]) for each in answer.result] == [32_000]


async def test_a_service_with_a_time_to_live_is_listed_once_it_passes_and_before_where_all_are_asked_for(
    tmp_path: Path,
) -> None:
    async with running_server(tmp_path) as running:
        resource_id = (await running.ask("POST", "/v1/aqua/resources", {"label": "web"})).result["resource_id"]
        target = f"/v1/aqua/resources/{resource_id}"
        for ttl in (-1, "10", 10.0**9):
            assert (await running.ask("POST", f"{target}/records", {"ttl": ttl})).status == 400
        assert (await running.ask("POST", f"{target}/records", {"value": "here", "ttl": 30})).status == 201
        assert (await running.ask("GET", f"{target}/records")).result == []
        [shown] = (await running.ask("GET", f"{target}/records?all=true")).result
        assert (shown["health"]["up"], shown["health"]["state"]) == (True, "critical")
        for query, there in (("", 0), ("?all=true", 1)):
            async with await running.connect() as stream:
                await stream.send_all(f"GET {target}/watch{query} HTTP/1.0\r\nHost: [::1]\r\n\r\n".encode())
                text = b""
                while not text.endswith(b"\n\n"):
                    text += await stream.receive_some(65536)
                assert text.count(b'"value":"here"') == there, text
            assert text.count(b'"state":"critical"') == there, text
        reported = await running.ask("POST", f"{target}/records/me/health", {"state": "passing"})
        assert reported.result["state"] == "passing"
        assert len((await running.ask("GET", f"{target}/records")).result) == 1


async def test_silent_clients_give_way_and_idle_ones_cost_no_place(tmp_path: Path) -> None:
    settings = HttpSettings(listen="127.0.0.1:0", max_connections=4)
    async with running_server(tmp_path, settings) as running, trio.open_nursery() as nursery:
        streams = []
        heads = [b"", b"GET /v1/aqua/status HTTP/1.1\r\nHost: local"]
        heads.append(b"POST /v1/aqua/resources HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{")
        for number in range(12):
            streams.append(await running.connect())
            await streams[-1].send_all(heads[number % 3])
        assert (await running.ask("GET", "/v1/aqua/resource-id?label=a")).status == 200
        assert running.server.connections <= 4
        for stream in streams:
            await stream.aclose()
        nursery.cancel_scope.cancel()


async def test_the_server_closes_within_its_time_whatever_is_open(tmp_path: Path) -> None:
    settings = HttpSettings(listen="127.0.0.1:0", stop_timeout=0.5)
    resource_id = key_id_of("no", STRANGER.peer_id)
    async with running_server(tmp_path, settings) as running:
        idle, watching = await running.connect(), await running.connect()
        await watching.send_all(f"GET /v1/aqua/resources/{resource_id}/watch HTTP/1.1\r\nHost: [::1]\r\n\r\n".encode())
        assert b"text/event-stream" in await watching.receive_some(65536)
        began = trio.current_time()
    for stream in (idle, watching):
        async with stream:
            while await stream.receive_some(65536):
                pass
    assert trio.current_time() - began < 10
    assert not running.server.socket.exists()


async def test_an_address_with_tls_is_only_reached_by_tls(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "1",
    ]
    made += ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    await trio.run_process([*made, "-keyout", str(key), "-out", str(certificate)], capture_stderr=True)
    settings = HttpSettings(listen="127.0.0.1:0", tls_certificate=str(certificate), tls_key=str(key))
    async with running_server(tmp_path / "node", settings) as running:
        context = ssl.create_default_context(cafile=str(certificate))
        async with trio.SSLStream(await running.connect(), context, server_hostname="127.0.0.1") as stream:
            await stream.send_all(b"GET /v1/aqua/peers HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
            assert (await stream.receive_some(15)).startswith(b"HTTP/1.1 200 OK")
        async with await running.connect() as plain:
            await plain.send_all(b"GET /v1/aqua/peers HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
            assert b"HTTP" not in await plain.receive_some(65536)


async def test_what_asks_for_much_doesnt_hold_the_loop_for_long(tmp_path: Path) -> None:
    """A record's value and signatures are some 200 KB of JSON; with 32 such an answer takes 100 ms of work in all."""
    async with running_server(tmp_path) as running:
        resource_id = (await running.ask("POST", "/v1/aqua/resources", {"label": "large"})).result["resource_id"]
        key = (await running.node.registry.get_resource(resource_id)).key
        assert key is not None
        now = int(time.time())
        for number in range(32):
            host = Identity.from_seed(bytes([number]) * 32)
            fields = (resource_id, host.peer_id, host.peer_id, now, b"", "\u0001" * 60_000, (), ())
            unsigned = RecordMetadata(*fields, issuer_signature=b"")
            metadata = RecordMetadata(*fields, issuer_signature=host.sign(unsigned.signed_bytes()))
            record = Record(metadata, now, b"")
            signed = Record(metadata, now, host.sign(record.signed_bytes()))
            outcome = await running.node.parts.node_api.write(Item(key, signed), factor=1, timeout=5)
            assert outcome.stored == 1, outcome
        turns = Turns(lambda task: "run_handler" in task.name)  # those that serve; the client isn't measured
        gc.collect()
        gc.freeze()
        trio.lowlevel.add_instrument(turns)
        answer = await running.ask("GET", f"/v1/aqua/resources/{resource_id}/records")
        trio.lowlevel.remove_instrument(turns)
        assert len(answer.body) > 32 * 300_000
        assert len(json.loads(answer.body)["result"]) == 32
    assert not turns.slow
    assert turns.slowest > 0


async def test_a_wrong_peer_id_is_told_by_the_name_of_its_parameter(one_server: Running) -> None:
    answered = await one_server.ask("GET", "/v1/aqua/peers/nonsense/presence")
    assert answered.status == 400
    assert answered.json()["detail"] == "peer_id: not the peer id of an Ed25519 key: 'nonsense'"
