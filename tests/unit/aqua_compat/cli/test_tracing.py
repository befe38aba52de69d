"""Tracing is turned on by a setting, by the process's own provider where it has one."""

from __future__ import annotations

import subprocess
import sys

from tests.paths import ROOT


def said_by(code: str) -> str:
    """What a process of its own prints: a provider is a process's for good."""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return ran.stdout


def test_spans_are_exported_where_nothing_else_is_set_up() -> None:
    code = (
        "from opentelemetry import trace\n"
        "from aqua_compat.cli.tracing import turn_on_tracing\n"
        "from overlay.tracing import TRACING\n"
        "turn_on_tracing()\n"
        "print(TRACING.is_on, trace.get_tracer_provider().resource.attributes['service.name'])\n"
    )
    assert said_by(code) == "True aqua-registry\n"


def test_a_provider_that_is_there_is_kept() -> None:
    code = (
        "from opentelemetry import trace\n"
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "from aqua_compat.cli.tracing import turn_on_tracing\n"
        "own = TracerProvider()\n"
        "trace.set_tracer_provider(own)\n"
        "turn_on_tracing()\n"
        "print(trace.get_tracer_provider() is own)\n"
    )
    assert said_by(code) == "True\n"


def test_without_opentelemetry_it_says_what_to_install() -> None:
    code = (
        "import sys\n"
        "sys.modules['opentelemetry'] = None\n"
        "from aqua_compat.cli.failures import Failure\n"
        "from aqua_compat.cli.tracing import turn_on_tracing\n"
        "try:\n"
        "    turn_on_tracing()\n"
        "except Failure as failure:\n"
        "    print(failure)\n"
    )
    assert "pip install 'aqua-registry[tracing]'" in said_by(code)
