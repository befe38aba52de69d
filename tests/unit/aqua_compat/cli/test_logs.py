"""Log lines for people."""

from __future__ import annotations

import subprocess
import sys

WARNS = r"""
import structlog
from aqua_compat.cli.logs import configure_logs
configure_logs("info", {form!r})
structlog.get_logger().warning("interrupted", particle="a\x1b[2Jb", source="c\nd")
"""


def test_what_others_sent_does_not_steer_the_terminal() -> None:
    for form in ("human", "json"):
        ran = subprocess.run(
            [sys.executable, "-c", WARNS.format(form=form)], check=True, capture_output=True, timeout=30
        )
        assert b"interrupted" in ran.stderr
        assert b"\x1b" not in ran.stderr
        assert ran.stderr.count(b"\n") == 1
