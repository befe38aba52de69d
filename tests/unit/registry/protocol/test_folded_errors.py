"""What several peers said alike is told once."""

from __future__ import annotations

from registry.protocol.folded_errors import folded
from tests.unit.registry.builders import HOST, NODE, OWNER


def test_what_peers_said_alike_is_told_once_with_how_many_they_were() -> None:
    said = [f"Requested key X does not exist on {peer.peer_id}" for peer in (HOST, NODE, OWNER, HOST)]
    assert folded([*said, f"timeout on {HOST.peer_id}", "resource not found", "resource not found"]) == [
        "Requested key X does not exist on 3 peers",
        f"timeout on {HOST.peer_id}",
        "resource not found",
    ]


def test_what_was_said_without_a_peer_too_is_told_with_the_peer() -> None:
    assert folded(["too late", f"too late on {HOST.peer_id}"]) == [f"too late on {HOST.peer_id}"]


def test_other_texts_with_the_same_word_stay() -> None:
    assert folded(["go on here", "go on there"]) == ["go on here", "go on there"]
