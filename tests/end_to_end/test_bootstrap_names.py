"""Peers that join by a host's name and a port: trusting who answers first, and where they begin a network together."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from overlay.assembly import open_peer
from overlay.discovery.bootstrap_pins import FILE
from overlay.errors import AddressError
from overlay.identity import Identity
from overlay.peer import OverlayPeer
from overlay.settings import OverlaySettings
from tests.end_to_end.network import environment_of, eventually
from tests.faults.namespaces import are_possible, isolated

LOOPBACK = "/ip4/127.0.0.1/tcp/0"


@asynccontextmanager
async def joining(
    *bootstrap: str, listen: str = LOOPBACK, folder: Path | None = None, identity: Identity | None = None
) -> AsyncIterator[OverlayPeer]:
    settings = OverlaySettings(listen=(listen,), bootstrap=bootstrap, trust_first=True, retry_delay_limit=1.0)
    async with open_peer(identity or Identity.generate(), settings, data_dir=folder) as peer:
        yield peer


def port_of(peer: OverlayPeer) -> str:
    return peer.addresses()[0].split("/")[4]


async def knows(peer: OverlayPeer, *others: OverlayPeer) -> None:
    async def members() -> set[str]:
        await trio.lowlevel.checkpoint()
        return set(peer.members())

    await eventually(members, {other.peer_id for other in others}.issubset, 20)


async def test_who_answered_first_is_trusted_and_somebody_else_isnt_later(tmp_path: Path) -> None:
    async with joining() as seed:
        port = port_of(seed)
        async with joining(f"localhost:{port}", folder=tmp_path) as peer:
            await knows(peer, seed)
        assert seed.peer_id in (tmp_path / FILE).read_text()
    with capture_logs() as logs:
        async with (
            joining(listen=f"/ip4/127.0.0.1/tcp/{port}") as other,
            joining(f"localhost:{port}", folder=tmp_path) as peer,
        ):

            async def told() -> list[str]:
                await trio.lowlevel.checkpoint()
                return [line["error"] for line in logs if line["event"] == "no peer to join through"]

            [error, *_] = await eventually(told, bool, 20)
            assert other.peer_id in error
            assert str(tmp_path / FILE) in error
            assert peer.members() == []
            assert peer.is_isolated()


async def test_peers_that_are_given_the_same_names_begin_one_network_in_any_order(tmp_path: Path) -> None:
    identities = [Identity.generate() for _ in range(3)]
    async with joining() as one, joining() as two:
        ports = port_of(one), port_of(two)
    names = [f"localhost:{port}" for port in ports]
    file = tmp_path / "peers"
    file.write_text("\n".join([*names, "# a third comes by these"]))
    listen = [f"/ip4/127.0.0.1/tcp/{port}" for port in ports]
    async with joining(names[0], listen=listen[0], identity=identities[0]) as first:
        with trio.fail_after(20):
            await first.wait_joined()  # its name leads to itself alone
        async with (
            joining(*names, listen=listen[1], identity=identities[1]) as second,
            joining(f"file:{file}", identity=identities[2]) as third,
        ):
            await knows(first, second, third)
            await knows(second, first, third)
            await knows(third, first, second)


async def test_a_peer_has_to_be_named_unless_the_operator_decides_otherwise() -> None:
    with pytest.raises(AddressError, match="--trust-first"):
        async with open_peer(Identity.generate(), OverlaySettings(bootstrap=("localhost:7000",))):
            pass


@pytest.mark.skipif(not are_possible(), reason="this machine or user can't make namespaces")
def test_a_name_of_the_hosts_file_leads_to_all_its_addresses_and_to_the_pinned_peer_whoever_else_answers(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        isolated(sys.executable, "-m", "tests.end_to_end.named_in_hosts_file", str(tmp_path)),
        env=environment_of(tmp_path),
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["joined"] == [told["right"]]
    assert sorted(told["pinned_first"]) == sorted([told["right"], told["wrong"]])
