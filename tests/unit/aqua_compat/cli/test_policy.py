"""What `resource policy` takes and refuses before it uses the network, and times as options take them."""

from __future__ import annotations

import time

import pytest
from click.testing import CliRunner

from aqua_compat.cli.failures import Misuse
from aqua_compat.cli.main import cli
from aqua_compat.cli.policy import meaning_of_lift
from aqua_compat.cli.times import LONGEST, Moment, TimeSpan, span_in, span_text
from registry.model.signing import key_id_of
from registry.permission.edits import Edit, EditKind, edited
from registry.permission.policy import FOR_EVER
from tests.unit.registry.builders import HOST, ISSUER, NOW, OWNER, STRANGER, a_key, public_key

ID = key_id_of("payments", OWNER.peer_id)
PAIR = f"{ISSUER.peer_id}@{HOST.peer_id}"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--open", "--close"), "contradict each other"),
        (("--until", "7d"), "give --deny too"),
        (("--allow", "somebody"), "--allow: not the peer id"),
        (("--drop-root", ISSUER.peer_id + " "), "--drop-root: not as its own peer writes"),
        (("--deny", f"{ISSUER.peer_id}@somewhere"), "--deny: not the peer id"),
        (("--deny", "@"), "--deny: not the peer id"),
        (("--deny", PAIR, "--lift", PAIR), "named twice"),
        (("--deny", PAIR, "--drop-denial", PAIR), "named twice"),
        (("--allow", ISSUER.peer_id, "--disallow", ISSUER.peer_id), "--allow and --disallow of 12D3"),
        (("--root", ISSUER.peer_id, "--drop-root", ISSUER.peer_id), "--root and --drop-root of 12D3"),
        (("--host", ISSUER.peer_id, "--drop-host", ISSUER.peer_id), "--host and --drop-host of 12D3"),
        (("--allow", ISSUER.peer_id), "no node to act through"),
    ],
)
def test_what_contradicts_itself_or_names_nobody_is_refused(options, told, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.delenv("AQUA_REGISTRY_RELAY", raising=False)
    result = CliRunner().invoke(cli, ["resource", "policy", ID, *options], standalone_mode=False)
    assert isinstance(result.exception, Misuse)
    assert told in str(result.exception)


def test_lifting_one_denial_tells_what_else_is_denied_still() -> None:
    ended, other = Edit(EditKind.DENY, public_key(ISSUER), until=NOW), Edit(EditKind.DENY, public_key(STRANGER))
    pair = Edit(EditKind.DENY, public_key(ISSUER), public_key(HOST))

    def told(lifted: Edit, *denied: Edit) -> str:
        return meaning_of_lift(lifted, a_key(policy=edited(None, [*denied, lifted, other])))

    assert f"counts again, but for what is denied still (lift it with --lift {PAIR}); what" in told(ended, pair)
    of_pair = pair._replace(until=NOW)
    assert f"but for what is denied still (lift it with --lift {ISSUER.peer_id})" in told(
        of_pair, ended._replace(until=FOR_EVER)
    )
    for lifted, denied in ((ended, of_pair), (of_pair, pair._replace(host=public_key(OWNER)))):
        assert "counts again; what it registered before stays withheld" in told(lifted, denied)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("24h", 86_400), ("30d", 2_592_000), ("90m", 5_400), ("7s", 7), ("3600", 3_600), (" 1d ", 86_400)],
)
def test_spans_are_numbers_with_a_unit(text: str, seconds: int) -> None:
    assert span_in(text) == seconds == TimeSpan().convert(text, None, None)


@pytest.mark.parametrize("text", ["", "h", "0h", "-1h", "1.5h", "1w", f"{LONGEST + 1}", "9" * 13, "1h30m", "٣h"])
def test_other_texts_are_no_span(text: str) -> None:
    assert span_in(text) is None


def test_moments_are_dates_times_and_spans_from_now() -> None:
    def at(text: str) -> int:
        return Moment().convert(text, None, None)

    assert at("2027-01-31") == 1801353600
    assert at("2027-01-31T12:00") == at("2027-01-31T14:00+02:00") == 1801353600 + 43_200
    assert at("7d") == pytest.approx(time.time() + 7 * 86_400, abs=2)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (119, "119 s"), (7_199, "119 m"), (86_340, "23 h"), (172_800, "2 d")]
)
def test_spans_for_people(seconds: int, text: str) -> None:
    assert span_text(seconds) == text
