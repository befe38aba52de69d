"""What the doctor finds in a node's status, and that it says what to do."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from aqua_compat.cli.doctor import ENOUGH_FILES, SOON, Level, findings_of
from aqua_compat.cli.main import cli
from aqua_compat.cli.session import CommandSession
from overlay.clock.comparison import ClockVerdict, Standing
from overlay.identity import load_or_create_identity
from overlay.peer import OverlayStatistics
from overlay.rpc.network_upkeep import NetworkStatus
from overlay.rpc.product import PeerVersion
from registry.client.node_status import DiskStatus, NodeStatus

NOW = 1_800_000_000.0
HEALTHY = NodeStatus(
    peer_id="12D3me",
    addresses=("/ip4/203.0.113.5/tcp/7000/p2p/12D3me",),
    members=("12D3other",),
    keys=1,
    records=1,
    tombstones=0,
    uptime=60.0,
    ready=True,
)


def disk(**fields: Any) -> DiskStatus:
    return DiskStatus(**({"used": 10, "budget": 100, "is_full": False, "damaged": 0} | fields))


def private(ends_at: int | None) -> NetworkStatus:
    return NetworkStatus(roots=("12D3root",), ends_at=ends_at, revoked=0, refused=0)


def dialled_by(members: int | None) -> OverlayStatistics:
    figures = {name: 0 for name in OverlayStatistics.__struct_fields__ if name not in ("refusals", "dialled_by")}
    return OverlayStatistics(**figures, refusals={}, dialled_by=members)


@dataclass
class Case:
    level: Level
    words: str
    fields: dict[str, Any]


@pytest.mark.parametrize(
    "case",
    [
        Case("problem", "linked to nobody: check what it joins through", {"ready": False, "members": ()}),
        Case("warning", "a network of one: start others", {"members": ()}),
        Case("warning", "it catches up", {"caught_up": False}),
        Case("problem", "its clock is off", {"clock": ClockVerdict(Standing.OFF, 40.0, 5)}),
        Case("warning", "from too few peers", {"clock": ClockVerdict(Standing.SUSPECT, 40.0, 1)}),
        Case("problem", "raise registry.max_disk_bytes, and restart", {"disk": disk(is_full=True)}),
        Case("warning", "85% of its budget", {"disk": disk(used=85)}),
        Case("problem", "check its disk", {"disk": disk(damaged=2)}),
        Case("warning", "others may have more of 7 resources (clock)", {"lacking": {"clock": 7}}),
        Case("problem", "it has no certificate", {"network": private(None)}),
        Case("problem", "its certificate ended", {"network": private(int(NOW) - 1)}),
        Case("warning", "give it a new token before", {"network": private(int(NOW) + SOON - 1)}),
        Case(
            "warning",
            "of its members 1 aqua-registry/0.2.0 (protocol 1.3): finish the upgrade",
            {
                "versions": {
                    "12D3me": PeerVersion("aqua-registry/0.1.0", "1.0"),
                    "12D3other": PeerVersion("aqua-registry/0.2.0", "1.3"),
                }
            },
        ),
        Case(
            "warning",
            "of its members 1 an older one (protocol 1.0)",
            {"versions": {"12D3me": PeerVersion("aqua-registry/0.1.0", "1.0"), "12D3other": PeerVersion("", "1.0")}},
        ),
        Case("warning", "--announce", {"addresses": ("/ip4/127.0.0.1/tcp/1/p2p/12D3me",)}),
        Case("warning", "none of its 1 member has dialled it since it started", {"overlay": dialled_by(0)}),
    ],
    ids=lambda case: case.words,
)
def test_each_ailment_is_found_with_what_to_do(case: Case) -> None:
    status = msgspec.structs.replace(HEALTHY, **case.fields)
    found = [finding for finding in findings_of(status, NOW) if finding.level != "ok"]
    assert [(finding.level, case.words in finding.text) for finding in found] == [(case.level, True)], found
    assert found[0].about == "node 12D3me"


def test_who_is_well_is_told_so() -> None:
    status = msgspec.structs.replace(HEALTHY, disk=disk(), network=private(int(NOW) + SOON + 1))
    assert [finding.level for finding in findings_of(status, NOW)] == ["ok"]


def test_who_was_dialled_by_members_is_told_so_and_nothing_where_that_isnt_known_yet() -> None:
    for fields, told in (
        ({"overlay": dialled_by(1)}, ["1 of its 1 member dialled it since it started"]),
        ({"overlay": dialled_by(None)}, []),
        ({"overlay": dialled_by(0), "uptime": 5.0}, []),
    ):
        status = msgspec.structs.replace(HEALTHY, **fields)
        found = [finding for finding in findings_of(status, NOW) if "dialled" in finding.text]
        assert [(finding.level, finding.text) for finding in found] == [("ok", text) for text in told]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a node on a machine where a process may open 1,024 files, and 100 MiB are free."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1024, 8192))
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=100, f_frsize=2**20))
    folder = tmp_path / "node"
    folder.mkdir(mode=0o700)
    return folder


def test_limits_of_the_machine_are_told_with_what_to_set(folder: Path) -> None:
    looked = CliRunner().invoke(cli, ["doctor", "--data-dir", str(folder)])
    assert looked.exit_code == 0, looked.output
    files, space = looked.stdout.splitlines()
    assert files.startswith("warning  machine: a process may open 1024 files")
    assert files.endswith(f"raise it to {ENOUGH_FILES} (ulimit -n, LimitNOFILE)")
    assert space == (
        f"warning  {folder}: 100 MiB are free there, and a node may use 1024 MiB more: free space, or lower"
        " registry.max_disk_bytes"
    )
    folder.chmod(0o750)
    shown = CliRunner().invoke(cli, ["doctor", "--data-dir", str(folder)])
    assert shown.exit_code == 1
    assert f"problem  {folder}: others can read it, and the node's secret key is there: chmod 700" in shown.stdout


@pytest.mark.parametrize(("used", "is_told"), [(60, False), (40, True)])
def test_a_node_may_fill_what_its_own_settings_say(
    folder: Path, monkeypatch: pytest.MonkeyPatch, used: int, is_told: bool
) -> None:
    """So the remedy that is told ends the warning."""
    identity = load_or_create_identity(folder / "identity.json", passphrase=lambda: None)
    filled = disk(used=used * 2**20, budget=150 * 2**20)
    status = msgspec.structs.replace(HEALTHY, peer_id=identity.peer_id, disk=filled)
    monkeypatch.setattr(CommandSession, "run", lambda session, action: status)
    address = f"/ip4/192.0.2.1/tcp/7000/p2p/{identity.peer_id}"
    looked = CliRunner().invoke(cli, ["doctor", "--data-dir", str(folder), "--relay", address])
    assert (looked.exit_code, "are free there" in looked.stdout) == (0, is_told), looked.output
