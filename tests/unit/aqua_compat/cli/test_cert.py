"""`cert issue`, `show` and `renew`, and what `service register` says to a certificate that can't be used at all."""

from __future__ import annotations

import base64
import json
import re
import time
from pathlib import Path
from typing import Any

import cbor2
import click
import msgspec
import pytest
from click.testing import CliRunner

from aqua_compat.cli.cert import may_share
from aqua_compat.cli.failures import Failure, Misuse
from aqua_compat.cli.keys import named_key
from aqua_compat.cli.main import cli
from overlay.identity import Identity
from overlay.membership.certificate import Certificate, encode_chain
from registry.client.certificate_files import read_chain
from registry.model.signing import key_id_of
from registry.permission.certificate_text import MARK, text_of
from registry.permission.scope import Scope, ScopeKind
from tests.unit.registry.builders import OWNER, STRANGER, a_certificate, public_key

NOBODY = f"/ip4/127.0.0.1/tcp/1/p2p/{STRANGER.peer_id}"
PEER = Identity.from_seed(bytes(32)).peer_id


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    return tmp_path


def run(*arguments: str) -> str:
    """What a command prints. Raises what it ends with."""
    result = CliRunner().invoke(cli, list(arguments), standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.stdout


def issued(file: Path, *arguments: str) -> Path:
    file.write_text(run("cert", "issue", *arguments))
    return file


def test_the_owner_is_given_by_alias_or_as_me(home: Path) -> None:
    config = home / "names.toml"
    config.write_text(f'[names]\nacme = "{OWNER.peer_id}"\n')
    asked = ("cert", "issue", "--for", PEER, "--on", "web", "--expires", "1d", "--config", str(config), "--owner")
    for word, owner in (("acme", OWNER.peer_id), ("me", named_key("default").peer_id)):
        file = home / f"{word}.cert"
        file.write_text(run(*asked, word))
        assert owner in run("cert", "show", str(file)), word
    with pytest.raises(Misuse, match=r"--owner: 'acne' is no alias .* did you mean acme"):
        run(*asked, "acne")


def test_a_certificate_is_issued_handed_on_twice_and_shown(home: Path) -> None:
    keys = [named_key(name) for name in ("owner", "one", "two", "three")]
    _, one, two, three = (key.peer_id for key in keys)
    first = issued(home / "1.cert", "-k", "owner", "--for", one, "--on", "pay*", "--expires", "30d", "--delegate", "2")
    second = issued(
        home / "2.cert",
        *("-k", "one", "--for", two, "--on", "payments", "--expires", "7d", "--delegate", "1", "--chain", str(first)),
    )
    third = issued(
        home / "3.cert", "-k", "two", "--for", three, "--on", "payments", "--expires", "24h", "--chain", str(second)
    )
    chain = read_chain(third)
    assert [each.depth for each in chain] == [2, 1, 0]
    assert [each.subject for each in chain] == [public_key(key) for key in keys[1:]]
    assert all(abs(each.not_before + 60 - time.time()) < 10 for each in chain)
    shown = run("cert", "show", str(third))
    assert "certificate 3 of 3" in shown
    assert "labels that begin with 'pay' of " in shown
    assert re.search(r"^it holds for 2[34] h, until ", shown, re.MULTILINE)
    told = json.loads(run("cert", "show", str(third), "--json"))
    assert told["schema"] == "aqua-registry.certificate/1"
    assert told["certificate"] == third.read_text().strip()
    assert [each["subject"] for each in told["chain"]] == [one, two, three]
    assert told["chain"][1]["on"] == {"kind": "label", "name": "payments", "owner": keys[0].peer_id}
    assert told["ends_at"] == chain[-1].expires_at


def test_a_certificate_is_renewed_in_its_place_by_whom_gave_it(home: Path) -> None:
    file = issued(home / "a.cert", "--for", PEER, "--on", "payments", "--expires", "1h")
    file.chmod(0o640)
    [before] = read_chain(file)
    renewed = run("cert", "renew", str(file), "--expires", "24h")
    assert re.fullmatch(rf"renewed {file}: it holds for 2[34] h, until .* UTC\n", renewed)
    [after] = read_chain(file)
    assert msgspec.structs.replace(after, expires_at=0, not_before=0, signature=b"") == msgspec.structs.replace(
        before, expires_at=0, not_before=0, signature=b""
    )
    assert after.expires_at > before.expires_at + 80_000
    assert file.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in home.glob("*.cert")] == ["a.cert"], "nothing is left beside it"
    run("cert", "renew", str(file))
    assert 86_400 - 5 <= read_chain(file)[0].expires_at - time.time() <= 86_400, "for as long as before"
    with pytest.raises(Failure, match="not by your key 'other': ask that one"):
        run("cert", "renew", str(file), "-k", "other")


def test_a_chain_for_other_resources_doesnt_take_the_place_of_a_good_one(home: Path) -> None:
    one = named_key("one")
    above, other = (
        issued(home / f"{label}.cert", "--for", one.peer_id, "--on", label, "--expires", "1h", "--delegate", "1")
        for label in ("payments", "wages")
    )
    file = issued(
        home / "a.cert", "--for", PEER, "--on", "payments", "--expires", "1m", "--chain", str(above), "-k", "one"
    )
    before = file.read_bytes()
    with pytest.raises(Failure, match=r"is for 'wages'.*would permit nothing \(certificate-resource\)"):
        run("cert", "renew", str(file), "--chain", str(other), "-k", "one")
    assert file.read_bytes() == before
    run("cert", "renew", str(file), "--chain", str(above), "-k", "one")


def test_what_would_permit_nothing_isnt_issued(home: Path) -> None:
    one = named_key("one")
    first = issued(home / "1.cert", "--for", one.peer_id, "--on", "payments", "--expires", "1h", "--delegate", "1")
    hand_on = ("cert", "issue", "--chain", str(first), "--expires", "1h", "--for", PEER)
    with pytest.raises(Failure, match=r"not for your key 'default'.*\(certificate-subject\)"):
        run(*hand_on, "--on", "payments")
    with pytest.raises(Failure, match=r"would permit nothing \(certificate-resource\)"):
        run(*hand_on, "--on", "wages", "-k", "one")
    with pytest.raises(Failure, match=r"\(certificate-depth\)"):
        run(*hand_on, "--on", "payments", "-k", "one", "--delegate", "1")
    with pytest.raises(Failure, match=r"at most.*\(certificate-chain-too-long\)"):
        run(*hand_on, "--on", "payments", "-k", "one", "--delegate", "2")
    with pytest.raises(Misuse, match="your own key"):
        run("cert", "issue", "--for", one.peer_id, "-k", "one", "--on", "payments", "--expires", "1h")
    with pytest.raises(Misuse, match="--for: not the peer id"):
        run("cert", "issue", "--for", "somebody", "--on", "payments", "--expires", "1h")
    with pytest.raises(click.BadParameter, match="is no time span"):
        run("cert", "issue", "--for", PEER, "--on", "payments", "--expires", "tomorrow")
    with pytest.raises(Misuse, match="more than 256 bytes"):
        run("cert", "issue", "--for", PEER, "--on", "p" * 300, "--expires", "1h")
    ended = a_certificate(OWNER, one, depth=1, expires_at=int(time.time()) - 1)
    (home / "ended.cert").write_text(text_of([ended]))
    with pytest.raises(Failure, match=r"ended at .*get yours renewed.*\(certificate-expired\)"):
        run(
            "cert",
            "issue",
            "--chain",
            str(home / "ended.cert"),
            "--for",
            PEER,
            "--on",
            "x",
            "--expires",
            "1h",
            "-k",
            "one",
        )
    assert "get it renewed" in run("cert", "show", str(home / "ended.cert"))


def raw(*parts: Any) -> str:
    return MARK + base64.b64encode(cbor2.dumps(["certificates/1", list(parts)], canonical=True)).decode()


FIELDS = cbor2.loads(encode_chain([a_certificate()]))[1][0]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        pytest.param("certificate", "certificate-form", id="not one at all"),
        pytest.param(text_of([a_certificate()])[:-8], "certificate-form", id="cut off"),
        pytest.param(raw([*FIELDS, "only on mondays"]), "certificate-unknown-fields", id="unknown fields"),
        pytest.param(raw(*[FIELDS] * 4), "certificate-chain-too-long", id="too long a chain"),
        pytest.param(
            text_of([msgspec.structs.replace(a_certificate(), depth=2)]), "certificate-signature", id="forged"
        ),
    ],
)
def test_commands_say_what_is_wrong_with_a_file_before_they_use_the_network(home: Path, text: str, code: str) -> None:
    file = home / "bad.cert"
    file.write_text(text)
    resource_id = key_id_of("payments", OWNER.peer_id)
    with pytest.raises(Failure, match=rf"bad\.cert can't be used: .*\({code}\)"):
        run("service", "register", resource_id, "--certificate", str(file), "--relay", NOBODY)
    for command in (("show",), ("renew",)):
        with pytest.raises(Failure, match=rf"\({code}\)"):
            run("cert", *command, str(file))


def scopes() -> list[Scope]:
    owners = [public_key(OWNER), public_key(STRANGER)]
    named = [
        Scope(kind, owner, name)
        for owner in owners
        for kind in (ScopeKind.LABEL, ScopeKind.PREFIX)
        for name in ("p", "pay", "payments", "wages")
    ]
    by_id = [
        Scope(ScopeKind.RESOURCE, b"", key_id_of(name, owner.peer_id))
        for owner in (OWNER, STRANGER)
        for name in ("pay", "wages")
    ]
    return [*named, *(Scope(ScopeKind.ALL, owner) for owner in owners), *by_id]


def test_scopes_share_a_resource_if_and_only_if_one_is_in_both() -> None:
    labels = ["p", "pay", "payments", "wages", "pa", "payroll"]
    known = [
        (key_id_of(label, owner.peer_id), label, public_key(owner)) for owner in (OWNER, STRANGER) for label in labels
    ]
    for one in scopes():
        for other in scopes():
            both = any(one.covers(*each) and other.covers(*each) for each in known)
            hidden = ScopeKind.RESOURCE in (one.kind, other.kind) and {one.kind, other.kind} & {
                ScopeKind.PREFIX,
                ScopeKind.ALL,
            }
            assert may_share(one, other) is (both or bool(hidden)), (one, other)
            assert may_share(one, other) is may_share(other, one)


def test_only_certificates_have_these_fields() -> None:
    assert len(FIELDS) == len(Certificate.__struct_fields__)
