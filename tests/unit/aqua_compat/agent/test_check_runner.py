"""Checks that run: real servers on real sockets, programs, reports; none holds up another."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from concurrent import futures
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
import trio
from h2.config import H2Configuration
from h2.connection import H2Connection

from aqua_compat.agent.check_runner import CheckKey, CheckRunner
from aqua_compat.agent.check_state import CheckResult, CheckState
from aqua_compat.agent.definitions import (
    AliasCheck,
    CheckDefinition,
    CheckTiming,
    DefinedInstance,
    GrpcCheck,
    HttpCheck,
    Probe,
    ScriptCheck,
    ServiceDefinition,
    TcpCheck,
    TtlCheck,
)
from aqua_compat.agent.probes.connection import first_to_answer
from aqua_compat.agent.probes.grpc_probe import probe_grpc
from aqua_compat.agent.probes.http_probe import probe_http
from aqua_compat.agent.probes.script_probe import MOST_OUTPUT, probe_script
from aqua_compat.agent.probes.tcp_probe import probe_tcp
from registry.model.endpoints import Instance

P, W, C = CheckState.PASSING, CheckState.WARNING, CheckState.CRITICAL
PATIENCE = 20.0


@asynccontextmanager
async def server(answer: bytes, context: ssl.SSLContext | None = None) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that reads once and answers `answer`; its port, and what it read. Without an answer it is silent."""
    asked: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        secured = stream if context is None else trio.SSLStream(stream, context, server_side=True)
        try:
            asked.append(bytes(await secured.receive_some(65_536)))
            if answer:
                await secured.send_all(answer)
                return
            await trio.sleep_forever()
        except trio.BrokenResourceError:
            return
        finally:
            await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield listener.socket.getsockname()[1], asked
        nursery.cancel_scope.cancel()


async def closed_port() -> int:
    with trio.socket.socket() as taken:
        await taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def ok(body: bytes = b"fine") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


@pytest.mark.parametrize(
    ("answer", "fields", "state", "note"),
    [
        (ok(), {}, P, "HTTP 200"),
        (ok(b"all is fine"), {"body": "f[i]ne$"}, P, "HTTP 200"),
        (ok(b"broken"), {"body": "fine"}, C, "HTTP 200, without 'fine' in its body"),
        (b"HTTP/1.1 503 No\r\n\r\n", {}, C, "HTTP 503"),
        (b"HTTP/1.1 503 No\r\n\r\n", {"status": (503,)}, P, "HTTP 503"),
        (b"HTTP/1.1 429 Slow\r\n\r\n", {}, W, "HTTP 429"),
        (b"HTTP/1.1 302 There\r\nLocation: /b\r\n\r\n", {}, C, "HTTP 302"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + ok(), {}, P, "HTTP 200"),
        (ok(b"x" * 200_000 + b"fine"), {"body": "fine"}, C, "without 'fine'"),
        (b"nonsense\r\n\r\n", {}, C, "illegal status line"),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 20_000, {}, C, "too"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab", {"body": "ab"}, C, "closed"),
    ],
)
async def test_http_looks_at_status_and_body(
    answer: bytes, fields: dict[str, Any], state: CheckState, note: str
) -> None:
    async with server(answer) as (port, asked):
        check = HttpCheck(
            url=f"http://127.0.0.1:{port}/health?deep=1", headers={"host": "web", "X-Probe": "1"}, **fields
        )
        with trio.fail_after(PATIENCE):
            result = await probe_http(check)
    assert result.state is state
    assert note in result.note
    head = asked[0].split(b"\r\n")
    assert head[0] == b"GET /health?deep=1 HTTP/1.1"
    assert {b"host: web", b"X-Probe: 1".lower()} <= {line.lower() for line in head[1:]}


async def test_nobody_there_is_critical_and_says_why() -> None:
    port = await closed_port()
    for probe in (
        probe_http(HttpCheck(url=f"http://localhost:{port}/")),
        probe_tcp(TcpCheck(host="127.0.0.1", port=port)),
        probe_grpc(GrpcCheck(host="127.0.0.1", port=port)),
    ):
        result = await probe
        assert result.state is C
        assert "Connection refused" in result.note


async def test_what_cant_be_asked_is_critical_and_no_fault_of_the_check() -> None:
    named = await probe_tcp(TcpCheck(host="a" * 64 + ".test", port=1))
    assert (named.state, "no host can have this name" in named.note) == (C, True), named
    async with server(ok()) as (port, _):
        url = f"http://127.0.0.1:{port}/"
        for check in (HttpCheck(url=url, headers={"Content-Length": "5"}), HttpCheck(url=f"{url}\1")):
            result = await probe_http(check)
            assert result.state is C
            assert result.note.startswith(url)


async def test_tcp_passes_where_somebody_listens() -> None:
    async with server(b"") as (port, _):
        assert (await probe_tcp(TcpCheck(host="localhost", port=port))).state is P


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    made = folder / "both.pem"
    request = f"req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout {made}"
    name = "-subj /CN=web.test -addext subjectAltName=DNS:web.test"
    command = ["openssl", *request.split(), *name.split(), "-out", str(folder / "c.pem")]
    subprocess.run(command, check=True, capture_output=True)
    made.write_bytes(made.read_bytes() + (folder / "c.pem").read_bytes())
    return made


async def test_tls_is_verified_unless_it_is_told_not_to_be(certificate: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    async with server(ok(), context) as (port, _):
        url = f"https://127.0.0.1:{port}/"
        refused = await probe_http(HttpCheck(url=url))
        assert (refused.state, "TLS: self-signed certificate" in refused.note) == (C, True), refused
        assert (await probe_http(HttpCheck(url=url, tls_verify=False))).state is P
        named = HttpCheck(url=url, tls_ca=str(certificate), tls_server_name="web.test")
        assert (await probe_http(named)).state is P
        wrong = await probe_http(HttpCheck(url=url, tls_ca=str(certificate)))
        assert (wrong.state, "TLS: " in wrong.note) == (C, True), wrong


@contextmanager
def grpc_server(statuses: dict[bytes, bytes]) -> Iterator[int]:
    """gRPC's own server, with a health service that answers by the request's bytes."""

    def check(request: bytes, context: grpc.ServicerContext) -> bytes:
        if request not in statuses:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return statuses[request]

    running = grpc.server(futures.ThreadPoolExecutor(2))
    handlers = {"Check": grpc.unary_unary_rpc_method_handler(check)}
    running.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health", handlers),))
    port = running.add_insecure_port("127.0.0.1:0")
    running.start()
    try:
        yield port
    finally:
        running.stop(None).wait()


async def test_grpcs_health_protocol_is_spoken_with_its_own_server() -> None:
    long = "x" * 200
    statuses = {
        b"": b"\x08\x01",
        b"\x0a\x02me": b"\x08\x02",
        b"\x0a\xc8\x01" + long.encode(): b"\x08\x01",
        b"\x0a\x01u": b"",
    }
    with grpc_server(statuses) as port:

        async def asked(service: str) -> CheckResult:
            return await probe_grpc(GrpcCheck(host="127.0.0.1", port=port, service=service))

        assert await asked("") == CheckResult(P, "gRPC says SERVING")
        assert await asked("me") == CheckResult(C, "gRPC says NOT_SERVING")
        assert await asked("u") == CheckResult(C, "gRPC says UNKNOWN")
        assert (await asked(long)).state is P
        assert (await asked("who")).note.endswith("it doesn't know the service")


async def test_what_isnt_grpc_is_critical() -> None:
    for answer in (ok(), b"\0" * 64, os.urandom(512)):
        async with server(answer) as (port, _):
            with trio.fail_after(PATIENCE):
                assert (await probe_grpc(GrpcCheck(host="127.0.0.1", port=port))).state is C


async def test_what_a_grpc_server_tells_besides_may_be_in_any_encoding() -> None:
    asking, answering = (
        H2Connection(H2Configuration(client_side=is_client, header_encoding=None)) for is_client in (True, False)
    )
    asking.initiate_connection()
    asking.send_headers(1, [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"a")])
    answering.initiate_connection()
    answering.receive_data(asking.data_to_send())
    answering.send_headers(1, [(b":status", b"200"), (b"x-name", b"caf\xe9")])
    answering.send_data(1, b"\0\0\0\0\2\x08\1", end_stream=True)
    async with server(answering.data_to_send()) as (port, _):
        assert (await probe_grpc(GrpcCheck(host="127.0.0.1", port=port))).state is P


def script(text: str) -> ScriptCheck:
    return ScriptCheck(arguments=(sys.executable, "-S", "-c", text))


async def test_a_scripts_exit_code_is_its_state_and_its_output_the_note() -> None:
    assert await probe_script(script("print('well')")) == CheckResult(P, "well")
    assert (await probe_script(script("raise SystemExit(1)"))).state is W
    assert await probe_script(script("raise SystemExit(2)")) == CheckResult(C, "exit code 2")
    missing = await probe_script(ScriptCheck(arguments=("/no/such/program",)))
    assert (missing.state, "/no/such/program: can't be run" in missing.note) == (C, True)
    loud = await probe_script(script("print('x' * 5_000_000)"))
    assert (loud.state, len(loud.note)) == (P, MOST_OUTPUT)


async def test_a_script_that_hangs_ends_with_all_that_it_started() -> None:
    child = "import socket, sys; s = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); s.recv(1)"
    with trio.socket.socket() as listening:
        await listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        parent = f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {child!r}, '{port}'])"
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(probe_script, script(parent))
                connection, _ = await listening.accept()
                nursery.cancel_scope.cancel()
            with connection:
                assert await connection.recv(1) == b"", "the end of whoever held it"


async def test_what_a_script_leaves_running_ends_with_it() -> None:
    connects = "import socket, sys; s = socket.create_connection(('127.0.0.1', int(sys.argv[1])))"
    child = f"{connects}; print('connected', flush=True); s.recv(1)"
    with trio.socket.socket() as listening:
        await listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        started = f"subprocess.Popen([sys.executable, '-S', '-c', {child!r}, '{port}'], stdout=subprocess.PIPE)"
        with trio.fail_after(PATIENCE):
            result = await probe_script(script(f"import subprocess, sys; print({started}.stdout.readline())"))
            assert result == CheckResult(P, "b'connected\\n'")
            connection, _ = await listening.accept()
            with connection:
                assert await connection.recv(1) == b"", "the end of whoever held it"


async def test_a_silent_address_of_a_name_doesnt_take_the_others_time() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        with socket.socket() as first, socket.socket() as second:
            for filling in (first, second):  # as many as it queues: from then on it answers nobody
                filling.setblocking(False)
                filling.connect_ex(silent.getsockname())
            refused = (socket.AF_INET, ("127.0.0.1", await closed_port()))
            async with server(b"") as (port, _):
                order = [(socket.AF_INET, silent.getsockname()), refused, (socket.AF_INET, ("127.0.0.1", port))]
                with trio.fail_after(PATIENCE):
                    stream = await first_to_answer(order)
                assert stream.socket.getpeername()[1] == port
                await trio.aclose_forcefully(stream)
            with pytest.raises(OSError, match="refused"):
                await first_to_answer([refused, refused])
            with trio.move_on_after(0.4) as waiting:
                await first_to_answer(order[:2])
            assert waiting.cancelled_caught, "or the test tries nothing"


async def test_a_pattern_that_takes_for_ever_on_a_body_holds_nobody_up() -> None:
    turns = 0
    async with server(ok(b"a" * 60_000 + b"b")) as (port, _), trio.open_nursery() as nursery:

        async def count() -> None:
            nonlocal turns
            while True:
                await trio.sleep(0.01)
                turns += 1

        nursery.start_soon(count)
        with trio.fail_after(PATIENCE):
            result = await probe_http(HttpCheck(url=f"http://127.0.0.1:{port}/", body="(a|aa)+$"))
        nursery.cancel_scope.cancel()
    assert (result.state, "takes more than 1 s" in result.note) == (C, True), result
    assert turns > 10


def service(service_id: str, *checks: tuple[str, Probe, CheckTiming]) -> ServiceDefinition:
    definitions = tuple(CheckDefinition(name=name, probe=probe, timing=timing) for name, probe, timing in checks)
    instance = DefinedInstance(instance=Instance(id="1"), checks=definitions)
    return ServiceDefinition(id=service_id, label=service_id, owner="o", key_id="k", instances=(instance,))


class Heard:
    """What a runner told, and waiting for it."""

    def __init__(self) -> None:
        self.states: dict[str, CheckState] = {}
        self.notes: dict[str, str] = {}
        self._event = trio.Event()

    def note(self, key: CheckKey, result: CheckResult) -> None:
        name = f"{key.service}/{key.check}"
        self.states[name], self.notes[name] = result
        self._event.set()
        self._event = trio.Event()

    async def until(self, **states: CheckState) -> None:
        with trio.fail_after(PATIENCE):
            while not all(self.states.get(name.replace("_", "/")) is state for name, state in states.items()):
                await self._event.wait()


@asynccontextmanager
async def running(*services: ServiceDefinition) -> AsyncIterator[tuple[CheckRunner, Heard]]:
    heard = Heard()
    runner = CheckRunner(heard.note)
    async with trio.open_nursery() as nursery:
        await nursery.start(runner.run)
        runner.update(services)
        yield runner, heard
        nursery.cancel_scope.cancel()


OFTEN = CheckTiming(interval=0.1, timeout=0.3)


async def test_checks_follow_what_they_check_and_those_that_hang_hold_up_none() -> None:
    async with server(b"") as (silent, _), server(ok()) as (port, _):
        hanging = [
            (f"h{number}", HttpCheck(url=f"http://127.0.0.1:{silent}/"), CheckTiming(interval=0.1, timeout=60.0))
            for number in range(200)
        ]
        slow = ("slow", HttpCheck(url=f"http://127.0.0.1:{silent}/"), OFTEN)
        good = ("ok", HttpCheck(url=f"http://127.0.0.1:{port}/"), OFTEN)
        async with running(service("many", *hanging), service("web", good, slow)) as (runner, heard):
            await heard.until(web_ok=P, web_slow=C)
            assert heard.notes["web/slow"] == "no answer within 0.3 s"
            assert runner.shown(CheckKey("many", "1", "h7")) == CheckResult(C, "not checked yet")
            assert runner.of_instance("web", "1").state is C
            assert runner.of_instance("none", "1").state is P


async def test_a_service_that_dies_is_critical_and_its_alias_with_it() -> None:
    alias = service("front", ("db", AliasCheck(service="db"), OFTEN))
    behind = service("far", ("front", AliasCheck(service="front"), OFTEN))
    async with trio.open_nursery() as nursery:
        started = trio.Event()
        ports: list[int] = []
        scope = trio.CancelScope()

        async def live() -> None:
            with scope:
                async with server(ok()) as (port, _):
                    ports.append(port)
                    started.set()
                    await trio.sleep_forever()

        nursery.start_soon(live)
        await started.wait()
        db = service("db", ("tcp", TcpCheck(host="127.0.0.1", port=ports[0]), OFTEN))
        async with running(db, alias, behind) as (_, heard):
            await heard.until(db_tcp=P, front_db=P, far_front=P)
            scope.cancel()
            await heard.until(db_tcp=C, front_db=C, far_front=C)
            assert heard.notes["front/db"].startswith("db: 127.0.0.1:")


async def test_an_alias_of_what_has_no_checks_passes_while_that_is_there() -> None:
    plain, alias = service("plain"), service("front", ("plain", AliasCheck(service="plain"), OFTEN))
    async with running(plain, alias) as (runner, heard):
        for _ in range(4):  # as often as makes a check flap that has states of its own
            await heard.until(front_plain=P)
            runner.update([alias])
            await heard.until(front_plain=C)
            assert heard.notes["front/plain"] == "plain: there is no such service any more"
            runner.update([plain, alias])
        await heard.until(front_plain=P)


async def test_an_alias_is_as_the_other_is_whatever_its_own_thresholds() -> None:
    job = service("job", ("ttl", TtlCheck(ttl=60), CheckTiming()))
    alias = service("front", ("job", AliasCheck(service="job"), CheckTiming(passes=3, failures=3)))
    async with running(job, alias) as (runner, heard):
        key = CheckKey("job", "1", "ttl")
        for state in (P, C, W, C):
            runner.report(key, CheckResult(state))
            await heard.until(front_job=state)


async def test_a_program_reports_itself_and_is_critical_when_it_stops() -> None:
    key = CheckKey("job", "1", "ttl")
    async with running(service("job", ("ttl", TtlCheck(ttl=0.2), CheckTiming()))) as (runner, heard):
        assert runner.report(key, CheckResult(W, "half full"))
        await heard.until(job_ttl=W)
        await heard.until(job_ttl=C)
        assert heard.notes["job/ttl"] == "nothing reported for 0.2 s"
        assert not runner.report(CheckKey("job", "1", "other"), CheckResult(P))


async def test_an_update_keeps_what_didnt_change_and_ends_what_is_gone() -> None:
    async with server(ok()) as (port, _):
        kept = service("kept", ("tcp", TcpCheck(host="127.0.0.1", port=port), CheckTiming(interval=3600)))
        gone = service("gone", ("tcp", TcpCheck(host="127.0.0.1", port=port), OFTEN))
        async with running(kept, gone) as (runner, heard):
            await heard.until(kept_tcp=P, gone_tcp=P)
            new = service("new", ("tcp", TcpCheck(host="127.0.0.1", port=port), OFTEN))
            runner.update([kept, new])
            assert runner.shown(CheckKey("kept", "1", "tcp")) == CheckResult(P, "connected")
            assert runner.shown(CheckKey("gone", "1", "tcp")) is None
            await heard.until(new_tcp=P)
