"""Tracing of a node: its spans go out by OTLP, as OpenTelemetry's own variables of the environment say."""

from __future__ import annotations

from aqua_compat.cli.failures import Failure
from overlay.tracing import TRACING


def turn_on_tracing() -> None:
    """Makes spans from now on: by the provider that the process has (as under `opentelemetry-instrument`), else by one
    that exports to `OTEL_EXPORTER_OTLP_ENDPOINT`. Raises Failure where OpenTelemetry isn't installed."""
    # ruff: noqa: PLC0415 - optional
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise Failure(f"tracing needs OpenTelemetry ({error}): pip install 'aqua-registry[tracing]'") from None
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        resource = Resource.create() if _is_named() else Resource.create({SERVICE_NAME: "aqua-registry"})
        provider = TracerProvider(resource=resource)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(provider)
    TRACING.turn_on()


def _is_named() -> bool:
    import os

    return "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
