"""Log lines for people."""

from __future__ import annotations

import json
import subprocess
import sys

import structlog

from aqua_compat.cli.logs import RepeatedLines
from aqua_compat.cli.output import json_line

WARNS = r"""
import structlog
from aqua_compat.cli.logs import configure_logs
configure_logs("info", {form!r})
structlog.get_logger().warning("interrupted", particle="a\x1b[2Jb", source="c\nd\u202eright\x9b")
"""


def test_what_is_logged_again_and_again_is_left_out_and_counted() -> None:
    now = 0.0
    repeated = RepeatedLines(most=3, clock=lambda: now)

    def logged(event: str, level: str = "warning") -> int | None:
        """How many lines were left out before this one; None when it is left out too."""
        try:
            return int(repeated(None, level, {"event": event, "peer": "x"}).get("left_out", 0))
        except structlog.DropEvent:
            return None

    assert [logged("flood") for _ in range(10)] == [0, 0, 0, *[None] * 7]
    assert logged("another") == 0
    assert logged("flood", "debug") == 0
    now = 61.0
    assert [logged("flood") for _ in range(4)] == [7, 0, 0, None]
    now = 500.0
    assert logged("flood") == 1
    now = 1000.0
    assert logged("flood") == 0


def test_what_others_sent_does_not_steer_the_terminal() -> None:
    for form in ("human", "json"):
        ran = subprocess.run(
            [sys.executable, "-c", WARNS.format(form=form)], check=True, capture_output=True, timeout=30
        )
        assert b"interrupted" in ran.stderr
        assert b"\x1b" not in ran.stderr
        assert "\u202e" not in ran.stderr.decode()
        assert "\x9b" not in ran.stderr.decode()
        assert ran.stderr.count(b"\n") == 1


def test_json_shows_what_could_steer_a_terminal_or_turn_text_about() -> None:
    value = {"label": "a\x1b[2J\x9b\x7f\u202e\u2066\u2028\u200fb", "é": ["日本", "\U000e0001", 1]}
    line = json_line(value)
    assert json.loads(line) == value
    assert line.isprintable()
    assert "日本" in line
    assert "é" in line
