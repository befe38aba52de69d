"""What docs/recipes says of DNS works as it stands, with the programs of Debian."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from aqua_compat.api.full_node import identity_in
from registry.health.state import HealthState
from registry.model.endpoints import Instance, write_instances
from tests.end_to_end.network import eventually
from tests.paths import ROOT
from tests.ports import free_port
from tests.unit.aqua_compat.dns.running import Asked, running_dns

pytestmark = pytest.mark.slow

TOLD_WITHIN = 3.0  # seconds
RESOLVED = shutil.which("systemd-resolved", path="/lib/systemd:/usr/lib/systemd") or os.environ.get("RESOLVED", "")
"""Debian's package would take the machine's own resolver over; the program alone, unpacked, does as well."""
STARTED_WITHIN = 10.0


def block_of(recipe: str, language: str) -> str:
    """The one block in that language."""
    [block] = re.findall(rf"^```{language}\n(.*?)^```", (ROOT / "docs/recipes" / recipe).read_text(), re.M | re.S)
    return block


@asynccontextmanager
async def running(*command: str, log: Path) -> AsyncIterator[None]:
    """A program until the block ends; what it says is in `log`."""
    with log.open("wb") as output:
        process = await trio.lowlevel.open_process(list(command), stdout=output, stderr=output)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        with trio.move_on_after(5) as patience, trio.CancelScope(shield=True):
            await process.wait()
        if patience.cancelled_caught:
            process.kill()


async def serve(
    name: str, host: str = "127.0.0.1", port: int = 0, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
) -> None:
    """Answers every request with its name; its port is told."""

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some(65_536)
            await stream.send_all(f"HTTP/1.0 200 OK\r\nContent-Length: {len(name)}\r\n\r\n{name}".encode())

    [listener] = await trio.open_tcp_listeners(port, host=host)
    task_status.started(listener.socket.getsockname()[1])
    await trio.serve_listeners(answer, [listener])


async def get(port: int, path: str = "/") -> str:
    """The body of what is there; empty while nothing is."""
    try:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
            received = b""
            while piece := await stream.receive_some(65_536):
                received += piece
    except OSError:
        return ""
    head, _, body = received.partition(b"\r\n\r\n")
    return body.decode() if b" 200 " in head.partition(b"\r\n")[0] else ""


async def answering(port: int, count: int = 12) -> set[str]:
    return {await get(port) for _ in range(count)}


async def registered(asked: Asked, resource_id: str, ports: list[int]) -> None:
    value = write_instances([Instance(id=str(port), address="127.0.0.1", port=port) for port in ports])
    assert (await asked.node.registry.register_service(resource_id, value, asked.node.peer.peer_id, None)).success


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy isn't here")
async def test_haproxy_follows_a_service(tmp_path: Path) -> None:
    own, port = identity_in(tmp_path / "node").peer_id, free_port()
    async with running_dns(tmp_path / "node", names={"acme": own}) as asked, trio.open_nursery() as nursery:
        ports = [await nursery.start(serve, name) for name in ("one", "two", "three")]
        created = (await asked.node.registry.create_resource("web")).resource_id
        assert created is not None
        await registered(asked, created, ports[:2])
        text = block_of("haproxy.md", "haproxy")
        assert "127.0.0.1:8600" in text
        assert "127.0.0.1:8080" in text
        text = text.replace("127.0.0.1:8600", str(asked.server.address)).replace("127.0.0.1:8080", f"127.0.0.1:{port}")
        (tmp_path / "haproxy.cfg").write_text(text)
        async with running("haproxy", "-db", "-f", str(tmp_path / "haproxy.cfg"), log=tmp_path / "log"):
            await eventually(lambda: answering(port), lambda seen: seen == {"one", "two"}, timeout=STARTED_WITHIN)
            await registered(asked, created, ports)
            await eventually(lambda: answering(port), lambda seen: seen == {"one", "two", "three"}, timeout=TOLD_WITHIN)
            done = await asked.node.registry.report_health(created, HealthState.CRITICAL, "", instance=str(ports[0]))
            assert done.success
            await eventually(lambda: answering(port), lambda seen: seen == {"two", "three"}, timeout=TOLD_WITHIN)
        nursery.cancel_scope.cancel()


@pytest.mark.skipif(shutil.which("dnsmasq") is None or shutil.which("dig") is None, reason="dnsmasq or dig isn't here")
async def test_dnsmasq_forwards_names(tmp_path: Path) -> None:
    own, port = identity_in(tmp_path / "node").peer_id, free_port()
    async with running_dns(tmp_path / "node", names={"acme": own}) as asked:
        created = (await asked.node.registry.create_resource("web")).resource_id
        assert created is not None
        await registered(asked, created, [8000])
        text = block_of("resolvers.md", "dnsmasq")
        assert "127.0.0.1#8600" in text
        (tmp_path / "conf").write_text(text.replace("#8600", f"#{asked.server.address.port}"))
        command = ["dnsmasq", "-k", "-C", str(tmp_path / "conf"), "-p", str(port), "--no-resolv", "--no-hosts"]
        command += ["--stop-dns-rebind", "--listen-address=127.0.0.1", "--bind-interfaces", "--pid-file=", "--user="]

        async def dig(*arguments: str) -> str:
            ran = await trio.run_process(
                ["dig", "@127.0.0.1", "-p", str(port), "+short", "+time=1", "+tries=1", *arguments],
                capture_stdout=True,
                check=False,
            )
            return ran.stdout.decode().strip() if ran.returncode == 0 else ""

        async with running(*command, log=tmp_path / "log"):
            await eventually(lambda: dig("web.acme.aqua"), lambda seen: seen == "127.0.0.1", timeout=STARTED_WITHIN)
            assert await dig("_web._tcp.acme.aqua", "SRV") == "1 1 8000 7f000001.addr.aqua."
            assert await dig("nothing.acme.aqua") == ""


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx isn't here")
async def test_nginx_follows_a_service(tmp_path: Path) -> None:
    own, port, backends = identity_in(tmp_path / "node").peer_id, free_port(), free_port()
    hosts = {"one": "127.0.0.1", "two": "127.0.0.2", "three": "127.0.0.3"}
    async with running_dns(tmp_path / "node", names={"acme": own}) as asked, trio.open_nursery() as nursery:

        async def register(*names: str) -> None:
            value = write_instances([Instance(id=name, address=hosts[name], port=backends) for name in names])
            done = await asked.node.registry.register_service(created, value, own, None)
            assert done.success, done

        for name, host in hosts.items():
            await nursery.start(serve, name, host, backends)
        created = (await asked.node.registry.create_resource("web")).resource_id
        assert created is not None
        await register("one", "two")
        text = block_of("nginx.md", "nginx")
        for recipes, ours in (
            ("127.0.0.1:8600", str(asked.server.address)),
            ("127.0.0.1:8080", f"127.0.0.1:{port}"),
            (":8000", f":{backends}"),
        ):
            assert recipes in text
            text = text.replace(recipes, ours)
        (tmp_path / "aqua.conf").write_text(text)
        (tmp_path / "nginx.conf").write_text(
            f"pid {tmp_path}/pid; worker_processes 1; error_log stderr; events {{}} http {{ access_log off; "
            f"client_body_temp_path {tmp_path}/body; proxy_temp_path {tmp_path}/proxy; "
            f"fastcgi_temp_path {tmp_path}/f; uwsgi_temp_path {tmp_path}/u; scgi_temp_path {tmp_path}/s; "
            f"include {tmp_path}/aqua.conf; }}"
        )
        command = ("nginx", "-e", "stderr", "-c", str(tmp_path / "nginx.conf"), "-g", "daemon off;")
        async with running(*command, log=tmp_path / "log"):
            await eventually(lambda: answering(port), lambda seen: seen == {"one", "two"}, timeout=STARTED_WITHIN)
            await register("one", "two", "three")
            await eventually(lambda: answering(port), lambda seen: seen == set(hosts), timeout=TOLD_WITHIN)
            done = await asked.node.registry.report_health(created, HealthState.CRITICAL, "", instance="one")
            assert done.success
            await eventually(lambda: answering(port), lambda seen: seen == {"two", "three"}, timeout=TOLD_WITHIN)
        nursery.cancel_scope.cancel()


# A machine of its own for the resolver: with a link, or it takes the network for down, its settings, and its user.
MACHINE = """
ip link set lo up
ip link add one type veth peer name other
ip addr add 192.0.2.9/24 dev one
ip link set one up
ip link set other up
ip route add default dev one
cp -a /etc etc
mount --bind etc /etc
mount -t tmpfs tmpfs /run
mkdir -p /etc/systemd/resolved.conf.d /run/systemd/resolve
cp recipe.conf /etc/systemd/resolved.conf.d/aqua.conf
grep -q ^systemd-resolve: /etc/group || echo systemd-resolve:x:991: >> /etc/group
grep -q ^systemd-resolve: /etc/passwd || echo systemd-resolve:x:991:991::/:/usr/sbin/nologin >> /etc/passwd
chown systemd-resolve:systemd-resolve /run/systemd/resolve
"$PYTHON" -m aqua_compat node --data-dir node --listen /ip4/127.0.0.1/tcp/0 --dns 127.0.0.1:8600 &
trap 'kill $(jobs -p)' EXIT
SYSTEMD_LOG_TARGET=console "$RESOLVED" &
for _ in $(seq 100); do
    dig +time=1 +tries=1 @127.0.0.53 +short me.node.aqua TXT | grep 12D3 && break
    sleep 0.2
done
dig +time=2 +tries=2 @127.0.0.53 nothing.me.aqua | grep NXDOMAIN
"""


@pytest.mark.skipif(not RESOLVED or not shutil.which("dig") or os.geteuid() != 0, reason="no resolved, dig, or root")
async def test_systemd_resolved_asks_the_node(tmp_path: Path) -> None:
    text = block_of("resolvers.md", "ini")
    assert "127.0.0.1:8600" in text
    (tmp_path / "recipe.conf").write_text(text)
    ran = await trio.run_process(
        ["unshare", "--mount", "--net", "bash", "-euc", MACHINE],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"PYTHON": sys.executable, "RESOLVED": RESOLVED, "PYTHONPATH": str(ROOT)},
    )
    own = identity_in(tmp_path / "node").peer_id
    assert ran.returncode == 0, (ran.stdout[-1000:], ran.stderr[-2000:])
    assert own in ran.stdout.decode()
    assert "status: NXDOMAIN" in ran.stdout.decode()
