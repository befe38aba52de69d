"""What files say of services: how they are read, and what is told of wrong ones."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aqua_compat.agent.definitions import (
    AliasCheck,
    GrpcCheck,
    HttpCheck,
    OnStop,
    ScriptCheck,
    ServiceDefinition,
    TcpCheck,
    TtlCheck,
)
from aqua_compat.agent.file_form import ServiceForm
from aqua_compat.agent.service_files import BadDefinitions, read_services
from aqua_compat.agent.service_places import ServicePlaces
from overlay.identity import Identity
from registry.model.names import Names
from registry.model.signing import key_id_of

NODE, ACME = (Identity.from_seed(bytes([number]) * 32).peer_id for number in (1, 2))
NAMES = Names({"acme": ACME}, NODE)


def read(folder: Path, *, allow_scripts: bool = False, **files: str) -> dict[str, ServiceDefinition]:
    """The services of files whose names have `_` for the dot, by id; nothing may be passed over."""
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    found = read_services(folder, NAMES, allow_scripts=allow_scripts)
    assert found.warnings == ()
    return {service.id: service for service in found.services}


def test_the_shortest_file_is_a_service_of_the_nodes_own(tmp_path: Path) -> None:
    text = """
        [[service]]
        name = "web"
        port = 8080
        tags = ["v2"]
        [[service.check]]
        http = "http://127.0.0.1:8080/health"
        interval = 10
    """
    (web,) = read(tmp_path, web_toml=text).values()
    assert (web.id, web.label, web.owner, web.key_id) == ("web", "web", NODE, key_id_of("web", NODE))
    assert web.on_stop is OnStop.LEAVE
    assert web.source == f"{tmp_path / 'web.toml'}, line 2"
    (only,) = web.instances
    assert (only.instance.id, only.instance.port, only.instance.tags) == ("web", 8080, ("v2",))
    assert only.instance.checks == ("http",)
    (check,) = only.checks
    assert check.probe == HttpCheck(url="http://127.0.0.1:8080/health")
    assert (check.timing.interval, check.timing.timeout, check.timing.failures) == (10.0, 5.0, 1)


def test_the_longest_file_says_everything(tmp_path: Path) -> None:
    text = """
        [[service]]
        name = "db"
        id = "db-main"
        owner = "acme"
        tags = ["sql"]
        metadata = {zone = "eu", role = "any"}
        on_stop = "stay"
        [[service.check]]
        tcp = "[::1]:5432"
        passes = 2
        failures = 3
        [[service.instance]]
        id = "primary"
        address = "192.0.2.1"
        port = 5432
        protocol = "postgres"
        tags = ["rw"]
        metadata = {role = "primary"}
        weight = 10
        [[service.instance.check]]
        name = "replication"
        script = ["/bin/check", "--lag"]
        timeout = 1.5
        [[service.instance]]
        id = "standby"
        [[service.instance.check]]
        tcp = "localhost:5433"
        [[service.instance.check]]
        grpc = "127.0.0.1:50051/health.Me"
        tls = true
        tls_verify = false
        [[service]]
        name = "worker"
        [[service.check]]
        ttl = 30
        [[service.check]]
        alias = "db-main"
    """
    found = read(tmp_path, allow_scripts=True, all_toml=text)
    db, worker = found["db-main"], found["worker"]
    assert (db.owner, db.on_stop, db.label) == (ACME, OnStop.STAY, "db")
    primary, standby = db.instances
    assert primary.instance.tags == ("sql", "rw")
    assert primary.instance.metadata == {"zone": "eu", "role": "primary"}
    assert standby.instance.metadata == {"zone": "eu", "role": "any"}
    assert [check.probe for check in primary.checks] == [
        TcpCheck(host="::1", port=5432),
        ScriptCheck(arguments=("/bin/check", "--lag")),
    ]
    assert standby.instance.checks == ("tcp", "tcp-2", "grpc")
    expected = GrpcCheck(host="127.0.0.1", port=50051, service="health.Me", tls=True, tls_verify=False)
    assert standby.checks[2].probe == expected
    assert (primary.checks[0].timing.passes, primary.checks[0].timing.failures) == (2, 3)
    assert [check.probe for check in worker.instances[0].checks] == [TtlCheck(ttl=30.0), AliasCheck(service="db-main")]


def test_json_and_the_settings_say_the_same_as_toml(tmp_path: Path) -> None:
    read(tmp_path, a_json=json.dumps({"service": [{"name": "web", "port": 80}]}))
    (tmp_path / "README.md").write_text("no service file")
    (tmp_path / ".hidden.toml").write_text("[")
    found = read_services(tmp_path, NAMES, in_settings=[ServiceForm(name="api", port=81)])
    assert [(one.label, one.source) for one in found.services] == [
        ("api", "the settings"),
        ("web", f"{tmp_path / 'a.json'}, line 1"),
    ]


def test_several_definitions_of_one_resource_are_instances_of_it(tmp_path: Path) -> None:
    found = read(tmp_path, a_toml='service = [{name = "web", id = "one"}, {name = "web", id = "two"}]')
    assert {service.key_id for service in found.values()} == {key_id_of("web", NODE)}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[[service]", r"bad\.toml: isn't TOML: .*line 1"),
        ('[service]\nname = "web"', r"write \[\[service\]\]"),
        ('[[service]]\nname = "web"\nprot = 1', r"service 1, prot: there is no such key; did you mean port\?"),
        ('[[servce]]\nname = "web"', r"servce: there is no such key; did you mean service\?"),
        ('[[services]]\nname = "web"', r"services: there is no such key; did you mean service\?"),
        (
            '[[service]]\nname = "web"\nmetadata = {zone = 1}',
            "metadata, one of them: it has to be a text, not a whole",
        ),
        (
            '[[service]]\nname = "web"\n[[service.check]]\nhttps = "x"',
            "service 1, check 1, https: there is no such key",
        ),
        ("[[service]]\nport = 80", "service 1: name isn't given, which it has to have"),
        ('[[service]]\nname = ""', r"service 1 \(\): name: it is empty"),
        ('[[service]]\nname = "web"\nport = 70000', r"service 1 \(web\): port isn't within 0 and 65535: 70000"),
        ('[[service]]\nname = "web"\nport = "80"', "service 1, port: it has to be a whole number, not a text"),
        ('[[service]]\nname = "web"\nowner = "acne"', r"owner: 'acne' is no alias .* did you mean acme\?"),
        ('[[service]]\nname = "web"\non_stop = "go"', "service 1, on_stop: it has to be one of leave, stay"),
        ('[[service]]\nname = "web"\naddress = "no address"', "neither an IP address nor a host name"),
        ('service = [{name = "w"}, {name = "w"}]', r"two services have the id 'w', the other in .*bad\.toml; give one"),
        (
            'service = [{name="w", id="a", instance=[{id="1"}]}, {name="w", id="b", instance=[{id="1"}]}]',
            "the instances of 'w' don't fit one record: two instances have the id '1'",
        ),
        ('service = [{name="w", port=1, instance=[{id="1"}]}]', "port: it is given beside `instance`"),
        ('[[service]]\nname = "w"\ntags = "v2"', "service 1, tags: it has to be a list, not a text"),
        ('service = [{name="w", check=[{http=1}]}]', "check 1, http: it has to be a text, not a whole number"),
        ('service = [{name="w", check=[{ttl="5s"}]}]', "check 1, ttl: it has to be a number, not a text"),
        ('service = [{name="w", check=[{tls=1, grpc="a:1"}]}]', "tls: it has to be true or false, not a whole number"),
        ('service = [{name="w", check=[{}]}]', "check 1: it checks nothing that is known; give exactly one of http,"),
        ('service = [{name="w", check=[{tcp="a:1", ttl=3}]}]', "check 1: it checks tcp and ttl; give exactly one"),
        ('service = [{name="w", check=[{tcp="a"}]}]', "tcp: 'a' isn't host:port"),
        ('service = [{name="w", check=[{tcp="a:70000"}]}]', "tcp: 'a:70000' isn't host:port .* 1 to 65535"),
        ('service = [{name="w", check=[{http="ftp://a"}]}]', "http: 'ftp://a' is no URL"),
        ('service = [{name="w", check=[{http="http://a:70000/"}]}]', "http: .* with a port of 1 to 65535"),
        ('service = [{name="w", check=[{http="http://a/ HTTP/1.1"}]}]', "is no URL"),
        ('service = [{name="w", check=[{http="http://a", headers={a="b\\r\\nc: d"}}]}]', "headers: 'a' can't be sent"),
        ('service = [{name="w", check=[{http="http://a", method="GET /"}]}]', "method: 'GET /' is none"),
        ('service = [{name="w", check=[{http="http://a", body="("}]}]', "body: it is no regular expression"),
        ('service = [{name="w", check=[{http="http://a", status=[42]}]}]', "status: 42 isn't within 100 and 599"),
        ('service = [{name="w", check=[{http="http://a", tls_ca="/none"}]}]', "tls_ca: there is no file '/none'"),
        ('service = [{name="w", check=[{tcp="a:1", body="x"}]}]', "body: it goes with http, not with tcp"),
        ('service = [{name="w", check=[{tcp="a:1", interval=0}]}]', "interval: 0 isn't within 0.1 and 86400"),
        ('service = [{name="w", check=[{tcp="a:1", interval=nan}]}]', "interval: nan isn't within"),
        ('service = [{name="w", check=[{tcp="a:1", timeout=0}]}]', "timeout: 0 isn't within 0.05 and 3600"),
        ('service = [{name="w", check=[{ttl=0}]}]', "ttl: 0 isn't within 0.1 and 86400"),
        ('service = [{name="w", check=[{tcp="a:1", passes=0}]}]', "passes: 0 isn't within 1 and 100"),
        ('service = [{name="w", check=[{name="x", ttl=1}, {name="x", ttl=2}]}]', "check 2: name: another check"),
        ('service = [{name="w", check=[{script=["/bin/true"]}]}]', "script: scripts are off .*agent.scripts = true"),
        ('service = [{name="w", check=[{alias="v"}]}]', "check 'alias': alias: there is no service with the id 'v'"),
        ('service = [{name="w", check=[{alias="w"}]}]', "service 'w': alias: it comes round to itself"),
        ('service = [{name="a", check=[{alias="b"}]}, {name="b", check=[{alias="a"}]}]', "comes round to itself"),
    ],
)
def test_what_is_wrong_is_told_with_file_field_and_remedy(tmp_path: Path, text: str, error: str) -> None:
    (tmp_path / "good.toml").write_text('[[service]]\nname = "good"')
    bad = tmp_path / "bad.toml"
    bad.write_text(text)
    with pytest.raises(BadDefinitions, match=error) as caught:
        read_services(tmp_path, NAMES)
    assert all(one.startswith(str(bad)) for one in caught.value.errors)


def test_the_line_is_told_where_a_service_begins_that_is_wrong(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    for second, told in (
        ("port = 70000", "service 2 (db): port isn't within 0 and 65535: 70000"),
        ("prot = 1", "service 2, prot: there is no such key; did you mean port?"),
        ('port = "1"', "service 2, port: it has to be a whole number, not a text"),
    ):
        bad.write_text(
            f'# of this machine\n[[service]]\nname = "web"\n\n [[ service ]]  # ours\nname = "db"\n{second}\n'
        )
        with pytest.raises(BadDefinitions) as caught:
            read_services(tmp_path, NAMES)
        assert caught.value.errors == (f"{bad}, line 5: {told}",)
    bad.write_text('[[service]]\nname = "web"\nport = -1\naddress = """\n[[service]]\n"""\n')
    with pytest.raises(BadDefinitions) as caught:
        read_services(tmp_path, NAMES)
    assert caught.value.errors[0].startswith(f"{bad}: service 1 (web): "), "no line is better than a wrong one"


TWICE = "two services have the id 'web', the other in"
TWICE_IN_JSON = """
    {"a": [{"service": [{}]}], "service": [
      {"name": "api", "metadata": {"service": "{"}},
      {"name": "web"},

      {"name": "web"}
    ]}
"""
TWICE_AT_CONSUL = """{"service": {
        "name": "web", "check": {"alias_service": "none"}
    },
    "services": [{
        "name": "web", "meta": {"service": "\\"{"}
    }]
}
"""


def test_the_line_is_told_of_what_doesnt_fit_together(tmp_path: Path) -> None:
    file = tmp_path / "web.toml"
    nobody = (
        "service 'web', check 'alias': alias: there is no service with the id 'none' on this machine; there are: web"
    )
    many = "".join(f'[[service.instance]]\nid = "{number}"\n' for number in range(65))
    for text, told in (
        ('[[service]]\nname = "web"\n[[service]]\nname = "web"\n', f"line 3: {TWICE} {file}, line 1; give one"),
        ('\n[[service]]\nname = "web"\n[[service.check]]\nalias = "none"\n', f"line 2: {nobody}"),
        ('#\n[[service]]\nname = "web"\n[[service.check]]\nalias = "web"\n', "line 2: service 'web': alias: it comes"),
        (f'[[service]]\nname = "web"\n{many}', "line 1: the instances of 'web' don't fit one record: "),
    ):
        file.write_text(text)
        with pytest.raises(BadDefinitions) as caught:
            read_services(tmp_path, NAMES)
        assert caught.value.errors[0].startswith(f"{file}, {told}"), caught.value
    file.unlink()
    file = tmp_path / "web.json"
    for text, faults in (
        (TWICE_IN_JSON.replace('"a": [{"service": [{}]}], ', ""), [f"line 6: {TWICE} {file}, line 4; give one"]),
        (TWICE_AT_CONSUL, [f"line 1: {TWICE} {file}, line 4; give one", f"line 1: {nobody}"]),
    ):
        file.write_text(text)
        with pytest.raises(BadDefinitions) as caught:
            read_services(tmp_path, NAMES)
        for error, fault in zip(caught.value.errors, faults, strict=True):
            assert error.startswith(f"{file}, {fault}"), caught.value


def test_no_other_part_of_json_is_taken_for_a_service() -> None:
    content = json.loads(TWICE_IN_JSON)
    assert ServicePlaces.of("x", TWICE_IN_JSON, content, is_toml=False).lines == (3, 4, 6)
    again = '{"service": [{"name": "web"}],\n"service": [\n{"name": "api"}]}'
    assert ServicePlaces.of("x", again, json.loads(again), is_toml=False).lines == (3,)
    for wrong in ('{"service": [1, {}]}', '{"service": "x"}', "[]"):
        assert ServicePlaces.of("x", wrong, json.loads(wrong), is_toml=False).lines == ()


def test_all_faults_are_told_at_once_but_no_more_than_a_few(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number:02}.toml").write_text("[")
    with pytest.raises(BadDefinitions) as caught:
        read_services(tmp_path, NAMES)
    assert len(caught.value.errors) == 21
    assert caught.value.errors[-1] == "and 10 more"


def test_files_that_cant_be_read_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"service": [\n]')
    (tmp_path / "b.json").write_bytes(b"\xff")
    (tmp_path / "c.json").write_text("[" * 100_000)
    (tmp_path / "d.json").write_text(" " * (2**20 + 1))
    (tmp_path / "e.json").write_text("[]")
    (tmp_path / "f.json").mkdir()
    with pytest.raises(BadDefinitions) as caught:
        read_services(tmp_path, NAMES)
    expected = ["line 2, column 2", "isn't UTF-8", "nested too deep", "split it", "list `service`", "Is a directory"]
    assert len(caught.value.errors) == len(expected)
    for error, text in zip(caught.value.errors, expected, strict=True):
        assert text in error
    with pytest.raises(BadDefinitions, match="none: can't be read: No such file"):
        read_services(tmp_path / "none", NAMES)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "service", "services", "check", "port", "http", "Args", "Meta"]), inner
        )
    ),
    max_leaves=10,
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(["service", "services", "x"]), JSON))
def test_no_content_of_a_file_raises_anything_else(tmp_path: Path, content: object) -> None:
    (tmp_path / "any.json").write_text(json.dumps(content))
    with suppress(BadDefinitions):
        read_services(tmp_path, NAMES)


CONSUL = {
    "service": {
        "ID": "web-1",
        "Name": "web",
        "Tags": ["v2"],
        "Address": "192.0.2.7",
        "Port": 8080,
        "Meta": {"zone": "eu"},
        "EnableTagOverride": False,
        "TaggedAddresses": None,
        "check": None,
        "Weights": {"Passing": 5, "Warning": 1},
        "connect": {"sidecar_service": {}},
        "checks": [
            {
                "id": "http",
                "name": "health",
                "http": "https://localhost:8080/health",
                "tls_skip_verify": True,
                "method": "HEAD",
                "header": {"X-Probe": ["a", "b"]},
                "interval": "1m30s",
                "timeout": "500ms",
                "body": None,
                "success_before_passing": 3,
                "failures_before_critical": 0,
                "deregister_critical_service_after": "90m",
            },
            {"tcp": "localhost:8080", "interval": "10s"},
            {"ttl": "30s"},
        ],
    }
}


def test_consuls_definitions_are_read_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "web.json").write_text(json.dumps(CONSUL))
    found = read_services(tmp_path, NAMES)
    (web,) = found.services
    instance = web.instances[0].instance
    assert (web.id, web.label, instance.address, instance.port) == ("web-1", "web", "192.0.2.7", 8080)
    assert (instance.tags, instance.metadata, instance.weight) == (("v2",), {"zone": "eu"}, 5)
    health, tcp, ttl = web.instances[0].checks
    assert health.probe == HttpCheck(
        url="https://localhost:8080/health", method="HEAD", headers={"X-Probe": "a, b"}, tls_verify=False
    )
    assert (health.timing.interval, health.timing.timeout, health.timing.passes, health.timing.failures) == (
        90,
        0.5,
        3,
        1,
    )
    assert (tcp.probe, ttl.probe) == (TcpCheck(host="localhost", port=8080), TtlCheck(ttl=30))
    passed_over = [warning.partition(": ")[2] for warning in found.warnings]
    assert passed_over == [
        "service 1: Consul's 'EnableTagOverride' means nothing here and is passed over",
        "service 1: Consul's 'connect' means nothing here and is passed over",
        "service 1, check 1: Consul's 'id' means nothing here and is passed over",
        "service 1, check 1: Consul's 'deregister_critical_service_after' means nothing here and is passed over",
    ]


@pytest.mark.parametrize(
    ("check", "named"),
    [
        ({"udp": "localhost:53"}, "udp"),
        ({"h2ping": "localhost:443", "interval": "1s"}, "h2ping"),
        ({"OSService": "web"}, "OSService"),
        ({"alias_node": "other"}, "alias_node"),
        ({"docker_container_id": "f9", "shell": "/bin/sh", "args": ["/bin/check"]}, "docker_container_id"),
    ],
)
def test_consuls_checks_that_arent_done_here_are_faults_that_name_them(
    tmp_path: Path, check: dict[str, Any], named: str
) -> None:
    """Passed over, they would have the service pass unchecked, or be done elsewhere than they say."""
    checks = [{"ttl": "5s"}, check]
    (tmp_path / "web.json").write_text(json.dumps({"service": {"name": "web", "checks": checks}}))
    with pytest.raises(BadDefinitions) as raised:
        read_services(tmp_path, NAMES, allow_scripts=True)
    [error] = raised.value.errors
    assert error == (
        f"{tmp_path / 'web.json'}, line 1: service 1, check 2: Consul's checks by {named} aren't done here; check it by"
        " one of http, tcp, grpc, args, ttl, alias_service"
    )


def test_consuls_list_of_services_is_read_too_and_its_faults_are_told(tmp_path: Path) -> None:
    two = {"services": [{"name": "a", "port": 1}, {"name": "b", "check": {"args": ["/bin/x"], "interval": "5s"}}]}
    (tmp_path / "two.json").write_text(json.dumps(two))
    assert len(read_services(tmp_path, NAMES, allow_scripts=True).services) == 2
    with pytest.raises(BadDefinitions, match=r"two\.json, line 1: service 2 \(b\): check 1: script: scripts are off"):
        read_services(tmp_path, NAMES)
    (tmp_path / "two.json").write_text(
        json.dumps({"service": {"name": "a", "check": {"tcp": "a:1", "interval": "soon"}}})
    )
    with pytest.raises(BadDefinitions, match="service 1, check 1, interval: 'soon' is no duration like 10s"):
        read_services(tmp_path, NAMES)


@pytest.mark.parametrize(
    ("check", "told"),
    [
        ({"http": "http://a"}, "Interval must be > 0 for Script, HTTP, TCP or GRPC checks; give one, such as 10s"),
        ({"tcp": "a:1", "interval": "0s"}, "Interval must be > 0"),
        ({"grpc": "a:1", "interval": None}, "Interval must be > 0"),
        ({"args": ["/bin/x"], "timeout": "5s"}, "Interval must be > 0"),
        ({"ttl": "5s", "interval": "5s"}, "Interval and TTL cannot both be specified; take one out"),
    ],
)
def test_consuls_definitions_say_how_often_a_check_is_made(check: dict[str, object], told: str, tmp_path: Path) -> None:
    """As Consul, which doesn't start with one that doesn't."""
    (tmp_path / "web.json").write_text(json.dumps({"service": {"name": "a", "checks": [{"ttl": "1s"}, check]}}))
    with pytest.raises(BadDefinitions, match=rf"web\.json.*: service 1, check 2, interval: {told}"):
        read_services(tmp_path, NAMES, allow_scripts=True)


def test_files_of_other_suffixes_are_named_but_for_what_editors_leave(tmp_path: Path) -> None:
    (tmp_path / "folder.d").mkdir()
    for name in ("web.hcl", "db.yaml", "web.toml~", "web.toml.bak", ".web.toml.swp", ".hidden"):
        (tmp_path / name).write_text("service {}")
    (tmp_path / "web.toml").write_text('[[service]]\nname = "web"\n')
    found = read_services(tmp_path, NAMES)
    assert [service.id for service in found.services] == ["web"]
    [warning] = found.warnings
    assert warning.endswith("called *.toml or *.json: db.yaml, web.hcl")
