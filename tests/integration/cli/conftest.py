"""A real HTTP server that answers as the gateway's contract says, and the CLI as a real process."""

from __future__ import annotations

import base64
import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

KEY = "sk_live_9Qm3vX8dTz2LpR7wYb5NcK4hJ6gF1sA0"
ORG = {"id": "acct_1", "slug": "adas-relay", "name": "Ada's Relay", "role": None}
SECOND = {"id": "acct_2", "slug": "second", "name": "Second", "role": "admin"}
SESSION = "ses_9Qm3vX8dTz2LpR7wYb5NcK4hJ6gF1sA0"
OPEN = {"/v1/signup", "/v1/plans", "/v1/device/code", "/v1/device/token"}
TOLLWAY = [sys.executable, "-m", "tollway.cli.main"]


def jwt(claims: Mapping[str, Any]) -> str:
    parts = ({"alg": "EdDSA"}, claims)
    return ".".join(base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in parts) + ".sig"


@dataclass
class Gateway:
    """Free until it is paid. `answers` override a route: (status, headers, body)."""

    url: str = ""
    plan: str = "free"
    canceling: bool = False
    status: str = "active"
    grace_end: str = ""
    signed_up: int = 0
    made: dict[str, Any] = field(default_factory=dict)
    calls: list[tuple[str, str, Any, str]] = field(default_factory=list)
    keys: list[tuple[str, str]] = field(default_factory=list)  # method and Idempotency-Key of each call
    answers: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    on_status: Callable[[Gateway], None] = lambda _: None
    polls: list[str] = field(default_factory=list)  # what a device login's polls are refused with, in order
    sessions: set[str] = field(default_factory=set)

    def refuse(
        self, route: str, status: int, code: str, detail: str, headers: Mapping[str, str] = {}, **extra: Any
    ) -> None:
        problem = {
            "type": f"{self.url}/problems#{code}",
            "title": "Refused",
            "status": status,
            "detail": detail,
            "instance": route.split(" ")[1],
            "code": code,
            **extra,
        }
        self.answers[route] = (
            status,
            {"Content-Type": "application/problem+json", **headers},
            json.dumps(problem).encode(),
        )

    def answer(self, method: str, path: str, body: Any, authorization: str) -> tuple[int, dict[str, str], bytes]:
        route = f"{method} {path}"
        self.calls.append((method, path, body, authorization))
        if route in self.answers:
            return self.answers[route]
        known = {f"Bearer {each}" for each in (KEY, *self.sessions)}
        if path not in OPEN and authorization not in known:
            self.refuse("GET /unauthenticated", 401, "api_key_unknown", "No account has this API key.")
            return self.answers["GET /unauthenticated"]
        if route == "POST /v1/device/token" and self.polls:
            refused = self.polls.pop(0)
            self.refuse("POST /polled", 400, refused, "Not yet.", error=refused)
            return self.answers["POST /polled"]
        code, value = self._value(route, body, authorization)
        return code, {"Content-Type": "application/json"}, b"" if code == 204 else json.dumps(value).encode()

    def _value(self, route: str, body: Any, authorization: str) -> tuple[int, Any]:
        by_session = authorization.startswith("Bearer ses_")
        match route:
            case "POST /v1/device/code":
                page = f"{self.url}/dash/device"
                codes = {"device_code": "dvc_1", "user_code": "WDJB-MJHT", "interval": 0, "expires_in": 600}
                return 200, {**codes, "verification_uri": page, "verification_uri_complete": f"{page}?code=WDJB-MJHT"}
            case "POST /v1/device/token":
                self.sessions.add(SESSION)
                account = {"id": "acct_1", "slug": "adas-relay", "name": "Ada's Relay", "email": "ada@example.com"}
                granted = {"access_token": SESSION, "token_type": "Bearer", "expires_in": 2_592_000}
                return 200, {**granted, "email": "ada@example.com", "account": account}
            case "GET /v1/session":
                times = {"created_at": "2026-04-01T00:00:00Z", "expires_at": "2026-05-01T00:00:00Z"}
                return 200, {"user_id": "usr_1", "email": "ada@example.com", **times}
            case "DELETE /v1/session":
                self.sessions.clear()
                return 204, None
            case "POST /v1/orgs":
                self.made = {"id": "acct_3", "slug": "third", "name": body["name"], "role": "owner"}
                return 201, self.made
            case "GET /v1/orgs" if by_session:
                return 200, {"orgs": [ORG | {"role": "owner"}, SECOND, *([self.made] if self.made else [])]}
            case "GET /v1/orgs/second/billing":
                end = {"current_period_end": None, "cancel_at_period_end": False}
                return 200, {"plan": "second-plan", "status": "active", **end}
            case "POST /v1/signup":
                self.signed_up += 1
                account = {"id": "acct_1", "slug": "adas-relay", "name": body["name"], "email": body["email"]}
                return 201, {"account": account, "api_key": KEY}
            case "POST /v1/auth/token":
                token = jwt({"sub": "acct_1", "tier": self.plan})
                return 200, {"access_token": token, "token_type": "Bearer", "expires_in": 3600}
            case "GET /v1/orgs":
                return 200, {"orgs": [ORG]}
            case "GET /v1/orgs/adas-relay/billing":
                self.on_status(self)
                return 200, {
                    "plan": self.plan,
                    "status": self.status,
                    "current_period_end": None if self.plan == "free" else "2026-04-01T00:00:00Z",
                    "cancel_at_period_end": self.canceling,
                    **({"grace_end": self.grace_end} if self.grace_end else {}),
                }
            case "POST /v1/orgs/adas-relay/billing/checkout":
                return 200, {"url": "https://checkout.example/c/pay/cs_test_1", "sessionId": "cs_test_1"}
            case "POST /v1/orgs/adas-relay/billing/portal":
                return 200, {"url": "https://billing.example/p/session/1"}
            case "GET /v1/orgs/adas-relay/usage":
                meter = {"meter": "messages", "used": 1234, "limit": 100000, "remaining": 98766}
                return 200, {
                    "tier": self.plan,
                    "meters": [
                        {**meter, "resets_at": "2026-04-01T00:00:00Z", "limits": []},
                        {
                            "meter": "exports",
                            "used": 3,
                            "limit": None,
                            "remaining": None,
                            "resets_at": None,
                            "limits": [],
                        },
                    ],
                }
            case "GET /v1/plans":
                return 200, {"product": "Skytale", "plans": PLANS}
        raise AssertionError(f"no such route: {route}")


def plan(tier: str, prices: list[dict[str, Any]], limit: int | None, contact_sales: bool = False) -> dict[str, Any]:
    return {
        "tier": tier,
        "name": tier.title(),
        "description": "",
        "prices": prices,
        "contact_sales": contact_sales,
        "quotas": [{"meter": "messages", "limit": limit, "period": "month"}],
    }


PRICE = {"id": "price_1", "lookup_key": "pro_month", "unit_amount": 2900, "currency": "usd", "interval": "month"}
PLANS = [plan("free", [], 100_000), plan("pro", [PRICE], 1_000_000), plan("enterprise", [], None, contact_sales=True)]


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    state = Gateway()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            state.keys.append((self.command, self.headers.get("Idempotency-Key", "")))
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, headers, content = state.answer(
                self.command, self.path, json.loads(raw) if raw else None, self.headers.get("Authorization", "")
            )
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), "X-Request-Id": "req_1", **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the calls are kept."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


@dataclass
class Cli:
    env: dict[str, str]
    home: Path

    @property
    def config(self) -> Path:
        return self.home / "config" / "tollway" / "config.json"

    def __call__(self, *args: str, code: int = 0, stdin: str = "", **env: str) -> Any:
        """Runs a command, checks its exit code, and returns the finished process (stdout, stderr as text)."""
        done = subprocess.run(
            [*TOLLWAY, *args], env=self.env | env, input=stdin, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done

    def in_terminal(self, *args: str, **env: str) -> str:
        """What a command that succeeds shows on a terminal."""
        control, terminal = pty.openpty()
        process = subprocess.Popen(
            [*TOLLWAY, *args], env=self.env | {"TERM": "xterm"} | env, stdout=terminal, stderr=terminal
        )
        os.close(terminal)
        said = b""
        while True:
            try:
                chunk = os.read(control, 4096)
            except OSError:  # Linux: the other side has closed
                break
            if not chunk:
                break
            said += chunk
        os.close(control)
        assert process.wait() == 0
        return said.decode()

    def start(self, *args: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*TOLLWAY, *args], env=self.env | env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    dropped = ("TOLLWAY_", "XDG_", "BROWSER", "DISPLAY", "WAYLAND", "NO_COLOR")
    env = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    env |= {
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "COLUMNS": "100",
        "TZ": "UTC",
        "PYTHONPATH": str(Path(__file__).parents[3]),
    }
    return Cli(env, tmp_path)


@pytest.fixture
def logged_in(cli: Cli, gateway: Gateway) -> Cli:
    cli("login", "--api-key", KEY, "--api-url", gateway.url)
    gateway.calls.clear()
    return cli
