"""Logs to stdout without secrets, and Prometheus metrics over HTTP."""

from __future__ import annotations

import bisect
import logging
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any

import structlog
from prometheus_client import REGISTRY, start_http_server
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from services.kit.correlation import request_id

# DESIGN §11.14: none of these may reach a log. Keys keep their prefix, so a person can tell which kind it was.
_SENSITIVE = r"password|passwd|secret|token|authorization|cookie|api[_-]?key|secret[_-]?key|private[_-]?key"
_NO_JWT = r"(?!eyJ[A-Za-z0-9_-]{8,}\.)"
_NO_ID = r"(?![0-9a-f]{32}(?![A-Za-z0-9]))"
_SECRETS = re.compile(
    # Stripe's keys and webhook secrets.
    r"(?<![A-Za-z0-9])(?P<stripe>(?:sk|rk)_(?:live|test)_|whsec_)[A-Za-z0-9_+/=-]{8,}"
    r"|(?<![A-Za-z0-9-])eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?"
    # API keys of any catalog: a prefix and at least 160 bits in base62. Not our ids: 32 hexadecimal digits.
    rf"|(?<![A-Za-z0-9])(?P<key>(?:{_NO_JWT}[A-Za-z][A-Za-z0-9]{{0,15}}_){{1,3}}){_NO_JWT}{_NO_ID}[A-Za-z0-9]{{27,}}"
    r"|(?P<scheme>\b(?:Bearer|Basic) )[A-Za-z0-9._~+/=-]{8,}"
    r"|(?P<url>://)(?:[^/\s@]{1,256}|[^/\s@]{0,99}:[^\s@]{0,256})(?=@)"
    # `"api_key": "…"`, `password=…`, in JSON, in reprs and in query strings.
    rf"|(?P<name>\b[\w-]{{0,40}}(?:{_SENSITIVE})\\?[\"']?\s*[:=]\s*\\?[\"']?)"
    r"(?!(?:Bearer|Basic) |\[redacted\])[^\s\"'\\,;&)}\]]+",
    re.IGNORECASE,
)
_SECRET_KEY = re.compile(rf"(?:^|_)(?:{_SENSITIVE})$", re.IGNORECASE)


def redact(text: str) -> str:
    """The text with keys, webhook secrets, JWTs, bearer tokens, passwords and named secrets taken out."""
    return _SECRETS.sub(lambda match: f"{match[match.lastgroup] if match.lastgroup else ''}[redacted]", text)


def _clean(value: Any) -> Any:
    """The value as JSON has it, without secrets."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, dict):
        return {redact(str(key)): _clean_named(str(key), inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_clean(inner) for inner in value]
    return redact(str(value))


def _clean_named(name: str, value: Any) -> Any:
    return "[redacted]" if _SECRET_KEY.search(name) and value else _clean(value)


def _redacting(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {key: _clean_named(key, value) for key, value in event.items()}


def named(service: str) -> structlog.typing.Processor:
    """Says in each line whose it is, and for which request, if for one."""

    def name(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["service"] = service
        ident = request_id.get()
        if ident:
            event.setdefault("request_id", ident)
        return event

    return name


def configure_logs(service: str, level: str = "info") -> None:
    """JSON lines on stdout; readable lines when stdout is a terminal. Libraries' lines (warnings up) look the same."""
    number = logging.getLevelName(level.upper())

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        named(service),
        _redacting,  # after tracebacks became text
    ]
    terminal = sys.stdout.isatty()
    renderer = structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *shared, renderer],
            use_get_message=True,
        )
    )
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler], force=True)
    logging.captureWarnings(True)


_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BOUNDS = (*map(str, _BUCKETS_S), "+Inf")
_Labels = tuple[tuple[str, str], ...]


class _Numbers(Collector):
    """Counters, gauges and histograms in plain dicts: under a microsecond each, with no lock on the event loop."""

    def __init__(self) -> None:
        self.counters: dict[str, dict[_Labels, float]] = defaultdict(lambda: defaultdict(float))
        self.gauges: dict[str, Callable[[], float]] = {}
        self.histograms: dict[str, dict[_Labels, list[float]]] = defaultdict(dict)

    def collect(self) -> Iterable[Metric]:
        # Copies: this runs on the scraper's thread while the event loop counts on.
        for name, series in self.counters.copy().items():
            series = series.copy()
            labels = sorted({key for label in series for key, _ in label})
            counter = CounterMetricFamily(name.removesuffix("_total"), name, labels=labels)
            for label, value in series.items():
                counter.add_metric([dict(label).get(key, "") for key in labels], value)
            yield counter
        for name, read in self.gauges.copy().items():
            yield GaugeMetricFamily(name, name, value=read())
        for name, samples in self.histograms.copy().items():
            samples = samples.copy()
            labels = sorted({key for label in samples for key, _ in label})
            histogram = HistogramMetricFamily(name, name, labels=labels)
            for label, cells in samples.items():
                total, buckets = 0.0, []
                for bound, cell in zip(_BOUNDS, cells[:-1], strict=True):
                    total += cell
                    buckets.append((bound, total))
                histogram.add_metric([dict(label).get(key, "") for key in labels], buckets, cells[-1])
            yield histogram


_numbers = _Numbers()
REGISTRY.register(_numbers)


def count(name: str, amount: float = 1, **labels: str) -> None:
    """Adds to a counter. `name` ends in `_total`."""
    _numbers.counters[name][tuple(labels.items())] += amount


def gauge(name: str, read: Callable[[], float]) -> None:
    """Registers a value that is read when it is scraped."""
    _numbers.gauges[name] = read


def observe(name: str, seconds: float, **labels: str) -> None:
    """Adds a duration to a histogram. `name` ends in `_seconds`."""
    series = _numbers.histograms[name]
    key = tuple(labels.items())
    cells = series.get(key)
    if cells is None:
        cells = series[key] = [0.0] * (len(_BUCKETS_S) + 2)
    cells[bisect.bisect_left(_BUCKETS_S, seconds)] += 1
    cells[-1] += seconds


def serve_metrics(host: str, port: int) -> Callable[[], None]:
    """`/metrics` on a thread of its own; returns what stops it. Port 0 serves nothing."""
    if port == 0:
        return lambda: None
    server, thread = start_http_server(port, addr=host)

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop
