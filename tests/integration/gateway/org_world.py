"""A real gateway before a real billing on PostgreSQL, and an issuer of outside tokens whose key set is on HTTP."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from gateway.main import serve
from gateway.settings import GatewaySettings
from local import ports
from services.billing.application import auth
from services.billing.grpc_server import add_services
from services.kit.process import Tasks
from services.kit.rpc import Server
from tests.integration.billing.conftest import Billing, running_billing

APP = "https://app.example.com"
CATALOG = Path("tests/catalogs/downloads.yaml")


def b64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


@dataclass
class Issuer:
    """Serves its key set, or whatever it is told to; remembers each path that it was asked for."""

    url: str = ""
    key: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))
    asked: list[str] = field(default_factory=list)
    answer: tuple[int, dict[str, str], bytes] | None = None

    def jwks(self) -> bytes:
        numbers = self.key.public_key().public_numbers()
        jwk = {"kty": "RSA", "kid": "k1", "use": "sig", "alg": "RS256", "e": "AQAB", "n": b64(numbers.n.to_bytes(256))}
        return json.dumps({"keys": [jwk]}).encode()

    def token(self, sub: str = "user_ada", key: rsa.RSAPrivateKey | None = None, **said: Any) -> str:
        now, headers = int(time.time()), said.pop("headers", {})
        claims = {"iss": self.url, "sub": sub, "azp": APP, "iat": now, "nbf": now, "exp": now + 60} | said
        return jwt.encode(claims, key or self.key, algorithm="RS256", headers={"kid": "k1", **headers})


@contextmanager
def issuing() -> Iterator[Issuer]:
    issuer = Issuer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.asked.append(self.path)
            status, headers, body = issuer.answer or (200, {}, issuer.jwks())
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing: pytest's output is for pytest."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    issuer.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class Orgs:
    billing: Billing
    issuer: Issuer
    http: httpx.AsyncClient
    config: GatewaySettings

    async def call(self, method: str, path: str, credential: str, body: Any = None, **headers: str) -> httpx.Response:
        sent = {"Authorization": f"Bearer {credential}"} if credential else {}
        return await self.http.request(method, path, json=body, headers=sent | headers)

    async def outsider(self, name: str, **said: Any) -> tuple[str, str]:
        """(slug, token) of an account that its token made on first sight."""
        token = self.issuer.token(f"user_{name}", **said)
        answer = await self.call("GET", "/v1/orgs", token)
        assert answer.status_code == 200, answer.text
        (org,) = answer.json()["orgs"]
        return org["slug"], token


@asynccontextmanager
async def running_orgs(
    dsn: str, *, local: bool, for_billing: dict[str, Any] | None = None, **settings: str
) -> AsyncIterator[Orgs]:
    async with AsyncExitStack() as stack:
        outside_local = {} if local else {"local": False, "rpc_token": "t" * 32}
        chosen = outside_local | (for_billing or {})
        billing = await stack.enter_async_context(running_billing(dsn, CATALOG, **chosen))
        issuer = stack.enter_context(issuing())
        keys = auth.SigningKeys(billing.context)
        await keys.rotate()
        server = Server(billing.context.settings, ports.reserve())
        add_services(server, billing.context, keys)
        await server.start()
        stack.push_async_callback(server.stop)
        config = GatewaySettings(
            **({"local": True} | outside_local),
            gateway_port=0,
            billing_addr=f"127.0.0.1:{server.port}",
            **({"clerk_issuer": issuer.url, "clerk_authorized_parties": APP} | settings),
        )
        port = await stack.enter_async_context(serve(config, Tasks()))
        http = await stack.enter_async_context(
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=40, trust_env=False)
        )
        yield Orgs(billing, issuer, http, config)
