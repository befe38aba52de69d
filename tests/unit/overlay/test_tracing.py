"""Spans go through calls and writes, from peer to peer, where tracing is on; nothing of it is there where it is off."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from aqua_compat.rpc.server import LIST_METHOD
from overlay.rpc.protocol import Request, encode
from overlay.tracing import CARRIED_BYTES, TRACING
from tests.paths import ROOT
from tests.unit.aqua_compat.http.running import Running, running_server


class Adder:
    """What a test serves."""

    async def add(self, one: int, other: int) -> int:
        return one + other


@pytest.fixture
def exported() -> Iterator[InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    TRACING.turn_on(provider)
    yield exporter
    TRACING.turn_off()
    provider.shutdown()


def chain(exporter: InMemorySpanExporter, last: str) -> list[ReadableSpan]:
    """The spans from a trace's first to one with this name."""
    spans = {span.context.span_id: span for span in exporter.get_finished_spans()}
    found = [next(span for span in spans.values() if span.name == last)]
    while found[0].parent is not None:
        found.insert(0, spans[found[0].parent.span_id])
    assert len({span.context.trace_id for span in found}) == 1
    return found


async def test_a_trace_goes_through_calls_relays_and_writes(tmp_path: Path, exported: InMemorySpanExporter) -> None:
    async with (
        running_server(tmp_path / "a", services_of=lambda own: own.serve("adder", Adder(), None)) as one,
        running_server(tmp_path / "b", bootstrap=(address(one),)) as relay,
        running_server(tmp_path / "c", bootstrap=(address(one), address(relay))) as other,
    ):
        for each in (relay, other):
            await each.node.peer.wait_joined()
        assert not exported.get_finished_spans()  # upkeep makes none

        body = {"service_id": "adder", "function": "add", "arguments": [1, 2]}
        called = await other.ask("POST", f"/v1/aqua/peers/{one.node.peer.peer_id}/calls", body)
        assert called.result == 3
        spans = chain(exported, f"serve {SERVICE_CALL}")
        assert [span.name for span in spans] == ["service call", f"call {SERVICE_CALL}", f"serve {SERVICE_CALL}"]
        assert [span.kind for span in spans] == [SpanKind.INTERNAL, SpanKind.CLIENT, SpanKind.SERVER]
        assert spans[0].attributes == {
            "aqua.peer": one.node.peer.peer_id,
            "aqua.service": "adder",
            "aqua.function": "add",
        }
        assert spans[2].attributes is not None
        assert spans[2].attributes["aqua.caller"] == other.node.peer.peer_id
        assert spans[2].parent is not None
        assert spans[2].parent.is_remote

        exported.clear()
        created = await other.node.registry.create_resource("web", factor=3)
        assert created.resource_id is not None, created
        written = [span for span in exported.get_finished_spans() if span.name.startswith("serve ")]
        assert written
        names = [span.name for span in chain(exported, written[0].name)]
        assert names[:2] == ["write", "write to replicas"]

        exported.clear()
        with TRACING.span("asked"):
            via = [relay.node.peer.peer_id]
            await other.node.peer.call_via(via, one.node.peer.peer_id, LIST_METHOD, None, timeout=10)
        spans = chain(exported, f"serve {LIST_METHOD}")
        assert [span.name for span in spans] == ["asked", f"call {LIST_METHOD}", f"serve {LIST_METHOD}"]
        assert spans[1].attributes is not None
        assert spans[1].attributes["aqua.relays"] == 1


SERVICE_CALL = "service/call"


def address(running: Running) -> str:
    return running.node.peer.addresses()[0]


async def test_a_call_that_fails_is_told_in_its_span(tmp_path: Path, exported: InMemorySpanExporter) -> None:
    async with running_server(tmp_path / "a") as one:
        await one.ask("POST", "/v1/aqua/peers/me/calls", {"service_id": "no", "function": "f"})
    [span] = exported.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR


@pytest.mark.parametrize("carried", [b"", b"\0" * CARRIED_BYTES, b"x", b"\xff" * (CARRIED_BYTES + 1), "new", 7, None])
def test_what_is_no_span_is_no_parent(exported: InMemorySpanExporter, carried: object) -> None:
    with TRACING.served(carried, "serve"):
        assert TRACING.carried() == b""
    assert not exported.get_finished_spans()


def test_a_frame_without_a_span_is_as_it_was() -> None:
    plain, traced = encode(Request(1, "m", b"", 5)), encode(Request(1, "m", b"", 5, bytes(CARRIED_BYTES)))
    assert len(traced) == len(plain) + CARRIED_BYTES + 2


def test_nothing_of_opentelemetry_is_imported_while_it_is_off() -> None:
    code = "import sys, aqua_compat.http.server; print([each for each in sys.modules if 'opentelemetry' in each])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ran.stdout == "[]\n"
    with TRACING.span("any"), TRACING.part("any"), TRACING.served(b"\1" * CARRIED_BYTES, "any"):
        assert TRACING.carried() == b""
