"""Addresses of peers out of the TXT records of a real name server, which the system's resolver configuration names."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.namespaces import are_possible, isolated

ONE = "/ip4/192.0.2.7/tcp/7000/p2p/12D3KooWQoz9NdibMyvtPoxPqy9sWVs1pTUDzuANpcfQKtFhCEfK"
TWO = "/ip4/192.0.2.8/tcp/7001/ws/p2p/12D3KooWDpp7U7W9Q8feMZPPEpPP5FKXTUakLgnVLbavfjb9mzrT"
RECORDS = {
    "_dnsaddr.seed.test": [f"dnsaddr={ONE}", "v=spf1 -all", "dnsaddr=/ip4/192.0.2.9/tcp/1"],
    "_dnsaddr.many.test": [f"dnsaddr={TWO}", *(f"dnsaddr={ONE}" for _ in range(30))],
    "_dnsaddr.nested.test": ["dnsaddr=/dnsaddr/seed.test"],
    "_dnsaddr.loop.test": ["dnsaddr=/dnsaddr/loop.test"],
}


@pytest.mark.skipif(not are_possible(), reason="this machine or user can't make namespaces")
def test_dnsaddr_finds_what_a_name_server_tells(tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:2\n")
    script = Path(__file__).with_name("name_server.py")
    names = ["seed.test", "many.test", "nested.test", "loop.test", "unknown.test"]
    inside = 'ip link set lo up && mount --bind "$1" /etc/resolv.conf && shift && exec "$@"'
    done = subprocess.run(
        isolated(
            *("sh", "-c", inside, "sh", str(tmp_path / "resolv.conf")),
            *(sys.executable, str(script), json.dumps(RECORDS), *names),
        ),
        env={"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seed, many, nested, loop, unknown = map(json.loads, done.stdout.splitlines())
    assert seed == [ONE], "what has no peer id, or is no dnsaddr, doesn't count"
    assert set(many) == {ONE, TWO}, "by TCP, as it is too much for a datagram"
    assert nested == [ONE]
    assert not loop or "can't be had" in loop
    assert not unknown or "can't be had" in unknown
