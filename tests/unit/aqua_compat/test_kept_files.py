"""Whatever a node keeps in its data folder beside its database is private, also in a folder that others can enter."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aqua_compat.agent.memory import AgentMemory, Remembered
from aqua_compat.http.consul.index_book import IndexBook
from aqua_compat.http.consul.local_agent import RegisteredServices
from aqua_compat.http.message import AccessLevel
from aqua_compat.http.tokens import Tokens
from overlay.discovery.bootstrap_pins import BootstrapPins
from overlay.identity import load_or_create_identity
from overlay.membership.revocation import Revocations
from overlay.presence.incarnation import next_incarnation
from overlay.rpc.network_files import write_revocations
from tests.paths import ROOT

PACKAGES = ("overlay", "registry", "aqua_compat")
WRITERS: dict[str, Callable[[Path], object]] = {
    "agent-registered.json": lambda folder: RegisteredServices(folder).keep(),
    "agent.json": lambda folder: AgentMemory(folder / "agent.json").keep([Remembered("k", "web", "o", stays=False)]),
    "bootstrap-pins.json": lambda folder: BootstrapPins(folder).pin("/dns/example.org/tcp/1", ["12D3KooW"]),
    "consul-index.json": lambda folder: IndexBook(folder, 1.0).index_of("web", b""),
    "http-tokens.json": lambda folder: Tokens(folder).create("page", AccessLevel.READ, 1),
    "identity.json": lambda folder: load_or_create_identity(folder / "identity.json", passphrase=lambda: None),
    "incarnation": lambda folder: next_incarnation(folder, 1.0),
    "revocations": lambda folder: write_revocations(folder / "revocations", Revocations()),
}
MAKE_FILES_BESIDE_OTHERS = {
    "overlay/private_file.py",
    "registry/client/certifying.py",  # a chain, which is no secret: it keeps the mode of the file that it replaces
}


@pytest.fixture(autouse=True)
def _open_to_all() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.parametrize("name", WRITERS)
def test_each_is_its_owners_alone_and_written_through_no_link(name: str, tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    folder.mkdir(mode=0o777)
    elsewhere.write_bytes(b"precious")
    (folder / name).with_suffix(".new").symlink_to(elsewhere)  # a name that somebody else could know beforehand
    WRITERS[name](folder)
    assert (folder / name).stat().st_mode & 0o777 == 0o600
    assert elsewhere.read_bytes() == b"precious"


def test_one_module_writes_files_that_take_the_place_of_others() -> None:
    modules = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    found = {str(path.relative_to(ROOT)) for path in modules if "mkstemp" in path.read_text()}
    assert found == MAKE_FILES_BESIDE_OTHERS
    assert [path.name for path in modules if 'with_suffix(".new")' in path.read_text()] == []
