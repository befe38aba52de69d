"""Spans of OpenTelemetry through calls, relays and writes, where the process has it and turns it on.

Rules:
1. While it is off nothing of OpenTelemetry is imported, and a span is one context manager that does nothing.
2. What somebody asks for begins a trace (`span`). Calls between peers are parts of one (`part`), or have no span:
   upkeep makes none.
3. A call within a trace carries which span it came from to the peer, 25 bytes; who isn't tracing ignores them. What a
   peer says of it is only ever a parent's id.
4. Spans say methods, peers and counts: never what is in a body.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer, TracerProvider

CARRIED_BYTES: Final = 25
"""The trace's id, the span's, and flags, as W3C Trace Context has them."""

_NOTHING: Final[AbstractContextManager[None]] = nullcontext()


class Tracing:
    """The spans of this process."""

    def __init__(self) -> None:
        self._tracer: Tracer | None = None

    @property
    def is_on(self) -> bool:
        """Whether spans are made."""
        return self._tracer is not None

    def turn_on(self, provider: TracerProvider | None = None) -> None:
        """Makes spans from now on, by the process's provider or the one given. Raises ImportError where OpenTelemetry
        isn't installed: it is the extra `tracing`."""
        from opentelemetry import trace  # noqa: PLC0415 - optional

        self._tracer = trace.get_tracer("aqua-registry", tracer_provider=provider)

    def turn_off(self) -> None:
        """Makes none from now on."""
        self._tracer = None

    def span(self, name: str, **attributes: str | int) -> AbstractContextManager[None]:
        """A span while the block runs, which begins a trace where there is none."""
        return _NOTHING if self._tracer is None else self._opened(self._tracer, name, "INTERNAL", attributes)

    def part(self, name: str, **attributes: str | int) -> AbstractContextManager[None]:
        """The span of a call to a peer; none outside of a trace."""
        if self._tracer is None or not self.carried():
            return _NOTHING
        return self._opened(self._tracer, name, "CLIENT", attributes)

    def served(self, carried: object, name: str, **attributes: str | int) -> AbstractContextManager[None]:
        """The span of serving a call that carried this; none where it carried nothing, or what can't be."""
        if self._tracer is None or not isinstance(carried, bytes) or len(carried) != CARRIED_BYTES:
            return _NOTHING
        from opentelemetry import trace  # noqa: PLC0415 - optional

        parent = trace.SpanContext(
            int.from_bytes(carried[:16], "big"),
            int.from_bytes(carried[16:24], "big"),
            is_remote=True,
            trace_flags=trace.TraceFlags(carried[24] & trace.TraceFlags.SAMPLED),
        )
        if not parent.is_valid:
            return _NOTHING
        context = trace.set_span_in_context(trace.NonRecordingSpan(parent))
        return self._opened(self._tracer, name, "SERVER", attributes, context)

    def carried(self) -> bytes:
        """What a call carries of the span that it is made in; nothing outside of one."""
        if self._tracer is None:
            return b""
        from opentelemetry import trace  # noqa: PLC0415 - optional

        at = trace.get_current_span().get_span_context()
        if not at.is_valid:
            return b""
        return at.trace_id.to_bytes(16, "big") + at.span_id.to_bytes(8, "big") + bytes([at.trace_flags])

    @contextmanager
    def _opened(
        self, tracer: Tracer, name: str, kind: str, attributes: dict[str, str | int], context: Any = None
    ) -> Iterator[None]:
        from opentelemetry import trace  # noqa: PLC0415 - optional

        told = {f"aqua.{key}": value for key, value in attributes.items()}
        with tracer.start_as_current_span(
            name, context, kind=trace.SpanKind[kind], attributes=told, record_exception=False
        ):
            yield


TRACING: Final = Tracing()
"""That of this process."""
