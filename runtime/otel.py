"""The only module that knows OpenTelemetry: `runtime.tracing` imports it, and only when asked."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from runtime.tracing import KEY

_NS = 1_000_000
# A command waits for no longer at its end, where nobody takes its spans.
SEND_S = 2


class Otel:
    """A `Tracer`. Nothing of it is global: a test has its own."""

    is_on = True

    def __init__(self, service: str, processor: SpanProcessor) -> None:
        self._provider = TracerProvider(resource=Resource.create({"service.name": service}))
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("usance")
        self._form = TraceContextTextMapPropagator()

    @contextmanager
    def span(
        self, name: str, told: Mapping[str, str], *, place: str = "", is_server: bool = False
    ) -> Iterator[str]:
        kind = SpanKind.SERVER if is_server else SpanKind.CLIENT
        span = self._tracer.start_span(name, self._form.extract({KEY: place}), kind, told)
        try:
            yield self._place(span)
        except BaseException as error:
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise
        finally:
            span.end()

    def past(self, name: str, told: Mapping[str, str], start_ms: int, end_ms: int, *, place: str) -> None:
        context, start_ns = self._form.extract({KEY: place}), start_ms * _NS
        span = self._tracer.start_span(name, context, SpanKind.INTERNAL, told, start_time=start_ns)
        span.end(max(start_ms, end_ms) * _NS)

    def close(self) -> None:
        self._provider.shutdown()

    def _place(self, span: Span) -> str:
        carrier: dict[str, str] = {}
        self._form.inject(carrier, set_span_in_context(span))
        return carrier[KEY]


def sending(service: str, endpoint: str) -> Otel:
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    is_plain = endpoint.startswith("http:")
    exporter = OTLPSpanExporter(endpoint=endpoint, insecure=is_plain, timeout=SEND_S)
    return Otel(service, BatchSpanProcessor(exporter))
