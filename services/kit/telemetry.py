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

# DESIGN §11.14: none of these may reach a log. Keys keep their prefix, so a person can tell which kind it was.
_SECRETS = re.compile(
    r"\b((?:sk|rk|pk)_(?:live|test)_|whsec_|mk_[a-z]+_)[A-Za-z0-9]{8,}"
    r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"
    r"|(?<=Bearer )[^\s'\"]+"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)


def redact(text: str) -> str:
    """The text with keys, webhook secrets, JWTs, bearer tokens and passwords in addresses taken out."""
    return _SECRETS.sub(lambda match: f"{match.group(1) or ''}[redacted]", text)


def _redacting(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = redact(value)
        elif not isinstance(value, (int, float, bool, type(None))):
            event[key] = redact(str(value))
    return event


class _RedactingFilter(logging.Filter):
    """Libraries log through the standard library; their lines pass here."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redact(record.getMessage()), None
        return True


def configure_logs(service: str, level: str = "info") -> None:
    """JSON lines on stdout; readable lines when stdout is a terminal."""
    number = logging.getLevelName(level.upper())
    handler = logging.StreamHandler(sys.stdout)
    handler.addFilter(_RedactingFilter())
    handler.setFormatter(logging.Formatter('{"level":"%(levelname)s","logger":"%(name)s","event":"%(message)s"}'))
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler], force=True)
    terminal = sys.stdout.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _redacting,
            structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)


_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_Labels = tuple[tuple[str, str], ...]


class _Numbers(Collector):
    """Counters, gauges and histograms in plain dicts: under a microsecond each, with no lock on the event loop."""

    def __init__(self) -> None:
        self.counters: dict[str, dict[_Labels, float]] = defaultdict(lambda: defaultdict(float))
        self.gauges: dict[str, Callable[[], float]] = {}
        self.histograms: dict[str, dict[_Labels, list[float]]] = defaultdict(dict)

    def collect(self) -> Iterable[Metric]:
        for name, series in list(self.counters.items()):
            labels = sorted({key for label in series for key, _ in label})
            counter = CounterMetricFamily(name.removesuffix("_total"), name, labels=labels)
            for label, value in list(series.items()):
                counter.add_metric([dict(label).get(key, "") for key in labels], value)
            yield counter
        for name, read in list(self.gauges.items()):
            yield GaugeMetricFamily(name, name, value=read())
        for name, samples in list(self.histograms.items()):
            labels = sorted({key for label in samples for key, _ in label})
            histogram = HistogramMetricFamily(name, name, labels=labels)
            for label, cells in list(samples.items()):
                total, buckets = 0.0, []
                for bound, cell in zip((*map(str, _BUCKETS_S), "+Inf"), cells[:-1], strict=True):
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
