"""What `network invite` puts into tokens of whose names the network's are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from aqua_compat.cli.main import cli
from aqua_compat.cli.network_folder import NetworkFolder
from overlay.identity import Identity, public_key_of
from overlay.membership.join_token import parse_token

OWNER, FIRST, SECOND = (Identity.generate().peer_id for _ in range(3))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    return tmp_path


def ran(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["network", *arguments])


def test_the_owner_and_the_registrars_are_in_this_token_and_the_next(home: Path) -> None:
    assert ran("create").exit_code == 0
    assert parse_token(ran("invite").stdout).owner == b""
    alone = ran("invite", "--registrar", FIRST)
    assert (alone.exit_code, "--registrar needs --owner" in alone.output) == (2, True)
    wrong = ran("invite", "--owner", "acme")
    assert wrong.exit_code == 2
    for given in (("--owner", OWNER, "--registrar", FIRST, "--registrar", SECOND), ()):
        token = parse_token(ran("invite", *given).stdout)
        assert token.owner == public_key_of(OWNER)
        assert token.registrars == (public_key_of(FIRST), public_key_of(SECOND))
    many = ran("invite", *[part for _ in range(9) for part in ("--registrar", FIRST)])
    assert (many.exit_code, "at most 8 registrars" in many.output) == (2, True)


def test_the_owners_alias_is_in_this_token_and_the_next_until_the_owner_is_given_without(home: Path) -> None:
    assert ran("create").exit_code == 0
    for given, alias in (
        (("--owner", f"acme={OWNER}"), "acme"),
        ((), "acme"),
        (("--registrar", FIRST), "acme"),
        (("--owner", OWNER), ""),
    ):
        token = parse_token(ran("invite", *given).stdout)
        assert (token.owner, token.alias) == (public_key_of(OWNER), alias), given
    assert ran("invite", "--owner", f"acme={OWNER}").exit_code == 0
    assert f"owner    {OWNER}, as acme\nregistrar  {FIRST}\n" in ran("show").stdout
    told = json.loads(ran("show", "--json").stdout)
    assert (told["owner"], told["alias"], told["registrars"]) == (OWNER, "acme", [FIRST])
    for wrong in (f"me={OWNER}", f"two words={OWNER}", "acme=", f"={OWNER}"):
        refused = ran("invite", "--owner", wrong)
        assert (refused.exit_code, "--owner: names." in refused.output) == (2, True), wrong


def test_what_was_given_is_revoked_though_the_clock_was_ahead_or_stands_still(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at(now: float, *command: str) -> Result:
        monkeypatch.setattr("time.time", lambda: now)
        return ran(*command)

    now = 1_700_000_000.0
    assert at(now, "create").exit_code == 0
    for ahead in (3_600.0, 0.0, 0.0):
        token = parse_token(at(now + ahead, "invite", "--for", FIRST).stdout)
        at(now, "revoke", FIRST)  # no node is there to be told: it is saved
        assert NetworkFolder("default").revocations().revokes(token.chain)


def test_json_tells_which_shape_it_has(home: Path) -> None:
    commands = [("create",), ("invite",), ("invite", "--for", FIRST), ("show",), ("revoke", FIRST)]
    told = [json.loads(ran(*command, "--json").stdout.splitlines()[0])["schema"] for command in commands]
    shapes = ["network-root", "network-token", "network-token", "private-network", "network-revocation"]
    assert told == [f"aqua-registry.{name}/1" for name in shapes]
