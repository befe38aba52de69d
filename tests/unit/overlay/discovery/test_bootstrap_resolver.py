"""Whom addresses without a peer id lead to: of several who answer, those that were pinned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from overlay.discovery.bootstrap_pins import FILE, BootstrapPins
from overlay.discovery.bootstrap_resolver import BootstrapResolver
from overlay.discovery.bootstrap_source import parse_source
from overlay.errors import BootstrapFailed, OverlayError
from overlay.identity import Identity

OWN, PINNED, OTHER, THIRD = (Identity.from_seed(bytes([number]) * 32).peer_id for number in range(4))
PLACE = "seeds.example:7000"


class Answerers:
    """Who answers, in place of the host."""

    def __init__(self, *peer_ids: str) -> None:
        self.found = [f"/ip4/192.0.2.{number}/tcp/7000/p2p/{each}" for number, each in enumerate(peer_ids, 1)]

    async def who_is_at(self, multiaddr: str, *, timeout: float) -> list[str]:
        return self.found


def resolver(host: Answerers, folder: Path | None, *, pins_first: bool = True) -> BootstrapResolver:
    async def look_up(name: str) -> list[str]:
        raise AssertionError(name)

    return BootstrapResolver(OWN, host, look_up, BootstrapPins(folder), pins_first=pins_first, timeout=1.0)


async def test_where_somebody_else_answers_too_those_that_are_pinned_are_left() -> None:
    host = Answerers(PINNED)
    found = resolver(host, None)
    assert await found.addresses(parse_source(PLACE)) == host.found
    host.found = Answerers(OTHER, PINNED, OWN, THIRD).found
    assert await found.addresses(parse_source(PLACE)) == host.found[1:3]


async def test_where_only_others_answer_it_is_told_who_and_how_to_pin_anew(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(json.dumps({PLACE: [PINNED]}))
    with pytest.raises(BootstrapFailed) as raised:
        await resolver(Answerers(OTHER, THIRD), tmp_path).addresses(parse_source(PLACE))
    assert str(raised.value) == (
        f"other peers answer at {PLACE} than did first: {OTHER}, {THIRD}; if that is right, take {PLACE!r} out of"
        f" {tmp_path / FILE}"
    )
    assert json.loads((tmp_path / FILE).read_text()) == {PLACE: [PINNED]}


async def test_who_takes_a_pin_out_of_the_file_pins_anew_while_the_peer_runs(tmp_path: Path) -> None:
    """And what another address pins later doesn't bring it back."""
    other_place = "others.example:7000"
    (tmp_path / FILE).write_text(json.dumps({PLACE: [PINNED]}))
    host = Answerers(OTHER)
    found = resolver(host, tmp_path)
    with pytest.raises(BootstrapFailed, match=f"take '{PLACE}' out of"):
        await found.addresses(parse_source(PLACE))
    (tmp_path / FILE).write_text("{}")
    assert await found.addresses(parse_source(other_place)) == host.found
    assert json.loads((tmp_path / FILE).read_text()) == {other_place: [OTHER]}
    assert await found.addresses(parse_source(PLACE)) == host.found
    assert json.loads((tmp_path / FILE).read_text()) == {PLACE: [OTHER], other_place: [OTHER]}

    (tmp_path / FILE).write_text("{")
    with pytest.raises(OverlayError, match="mend it, or delete it"):
        await found.addresses(parse_source(PLACE))


async def test_what_cant_be_kept_is_pinned_meanwhile(tmp_path: Path) -> None:
    host = Answerers(PINNED)
    found = resolver(host, tmp_path / "missing")
    assert await found.addresses(parse_source(PLACE)) == host.found
    host.found = Answerers(OTHER).found
    with pytest.raises(BootstrapFailed, match=f"other peers answer.*{OTHER}"):
        await found.addresses(parse_source(PLACE))


async def test_a_line_of_a_file_where_others_answer_takes_none_of_the_other_lines_answers(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(json.dumps({PLACE: [PINNED]}))
    peers = tmp_path / "peers"
    peers.write_text(f"{PLACE}\n/ip4/192.0.2.9/tcp/7000/p2p/{THIRD}\n")
    found = await resolver(Answerers(OTHER), tmp_path).addresses(parse_source(f"file:{peers}"))
    assert found == [f"/ip4/192.0.2.9/tcp/7000/p2p/{THIRD}"]


async def test_where_certificates_decide_nothing_is_pinned(tmp_path: Path) -> None:
    host = Answerers(OTHER)
    found = resolver(host, tmp_path, pins_first=False)
    assert await found.addresses(parse_source(PLACE)) == host.found
    assert not (tmp_path / FILE).exists()
