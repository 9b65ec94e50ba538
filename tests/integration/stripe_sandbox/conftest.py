"""A sandbox in a process of its own, a webhook receiver, and the clients that talk to it."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import stripe
import uvicorn

from local import ports
from local.stripe_sandbox.app import create_app
from local.stripe_sandbox.deliverer import RetryPolicy
from local.stripe_sandbox.sandbox import Settings

from .stripe_schema import check
from .timeline import Timeline

SECRET = "whsec_0123456789abcdef0123456789abcdef"
CARD = {"cardNumber": "4242 4242 4242 4242", "cardExpiry": "12 / 34", "cardCvc": "123", "billingName": "Jenny Rosen"}


@dataclass
class Delivery:
    event: dict[str, Any]
    signature: str
    at: float
    payload: bytes


class Receiver:
    """Takes webhooks, verifies them as the official library does, and answers as told."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.forged: list[str] = []
        # Secrets of endpoints of the tests' own that take thin events.
        self.thin_secrets: list[str] = []
        # Statuses for the next deliveries, then 200.
        self.answers: list[int] = []
        # The next deliveries are answered when their event is set.
        self.holds: list[threading.Event] = []
        # Nobody else's deliveries, left over on a port that is ours now, are taken for our own.
        self.path = f"/{secrets.token_hex(8)}"
        self._arrived = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                try:
                    length = int(self.headers["content-length"])
                    body = self.rfile.read(length)
                    if len(body) < length:
                        return  # the sender was killed in the middle
                    ours = self.path == receiver.path
                    status = receiver._take(body, self.headers["stripe-signature"]) if ours else 404
                    self.send_response(status)
                    self.send_header("content-length", "0")
                    self.end_headers()
                except ConnectionError:
                    self.close_connection = True

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}{self.path}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def _take(self, body: bytes, signature: str) -> int:
        try:
            if json.loads(body)["object"] == "v2.core.event":
                stripe.WebhookSignature.verify_header(body.decode(), signature, self.thin_secrets[0])
            else:
                stripe.Webhook.construct_event(body, signature, SECRET)
        except stripe.SignatureVerificationError as error:
            self.forged.append(str(error))
            return 400
        with self._arrived:
            self.deliveries.append(Delivery(json.loads(body), signature, time.time(), body))
            self._arrived.notify_all()
            answer = self.answers.pop(0) if self.answers else 200
            hold = self.holds.pop(0) if self.holds else None
        if hold is not None:
            hold.wait(30)
        return answer

    def types(self) -> list[str]:
        return [delivery.event["type"] for delivery in self.deliveries]

    def of(self, event_type: str) -> list[Delivery]:
        return [delivery for delivery in self.deliveries if delivery.event["type"] == event_type]

    def wait_for(self, event_type: str, count: int = 1, timeout: float = 10.0) -> list[Delivery]:
        with self._arrived:
            arrived = self._arrived.wait_for(lambda: len(self.of(event_type)) >= count, timeout)
        assert arrived, f"{event_type} came {len(self.of(event_type))} times, not {count}: {self.types()}"
        return self.of(event_type)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@dataclass
class Running:
    """A sandbox, and raw calls to it whose every object is checked against stripe-python's annotations."""

    state: Path
    webhook_url: str | None = None
    options: tuple[str, ...] = ("--retry-base", "0.1")
    port: int = field(default_factory=ports.reserve)
    process: subprocess.Popen[bytes] | None = None
    client: httpx.Client = field(
        default_factory=lambda: httpx.Client(headers={"Authorization": "Bearer sk_test_x"}, timeout=60)
    )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def clock_file(self) -> Path:
        return self.state / "offset"

    def start(self) -> Running:
        command = [sys.executable, "-m", "local.stripe_sandbox", "--port", str(self.port), "--state", str(self.state)]
        if self.webhook_url:
            command += ["--webhook-url", self.webhook_url, "--webhook-secret", SECRET]
        environment = {**os.environ, "TOLLWAY_CLOCK_FILE": str(self.clock_file)}
        self.process = subprocess.Popen([*command, *self.options], env=environment, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while True:
            try:
                httpx.get(f"{self.url}/healthz").raise_for_status()
                return self
            except httpx.ConnectError:
                assert self.process.poll() is None, "the sandbox ended at start"
                assert time.monotonic() < deadline, "the sandbox did not start"
                time.sleep(0.02)

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        self.client.close()
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)

    def call(self, method: str, path: str, data: dict[str, str] | None = None, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.request(method, f"{self.url}{path}", data=data, headers=named)

    def get(self, path: str) -> dict[str, Any]:
        """An object or list, checked against stripe-python's annotations."""
        answer = self.call("GET", path)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        check(found)
        return found

    def post(self, path: str, **data: str) -> dict[str, Any]:
        answer = self.call("POST", path, data)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        check(found)
        return found

    def refused(self, path: str, status: int = 400, method: str = "POST", /, **data: str) -> dict[str, Any]:
        """The error of a call that must fail."""
        answer = self.call(method, path, data or None)
        assert answer.status_code == status, f"{answer.status_code} {answer.text}"
        error: dict[str, Any] = answer.json()["error"]
        return error

    def control(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        answer = self.client.request(method, f"{self.url}/_sandbox/{path}", json=body, timeout=120)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def advance(self, **by: int) -> dict[str, Any]:
        return self.control("POST", "clock/advance", by)

    def drain(self, timeout: float = 10) -> None:
        found = self.control("POST", "deliveries/drain", {"timeout": timeout})
        assert found["drained"], found

    def events(self, **query: str) -> list[dict[str, Any]]:
        """Oldest first."""
        query_text = str(httpx.QueryParams({"limit": "100", **query}))
        found: list[dict[str, Any]] = self.get(f"/v1/events?{query_text}")["data"]
        return found[::-1]

    # The ways of a shop.

    def price(self, amount: int = 2900, interval: str | None = "month", **more: str) -> dict[str, Any]:
        product = self.post("/v1/products", name="Pro")
        recurring = {"recurring[interval]": interval} if interval else {}
        return self.post(
            "/v1/prices", product=product["id"], currency="usd", unit_amount=str(amount), **recurring, **more
        )

    def customer(self, card: str | None = "pm_card_visa", **more: str) -> dict[str, Any]:
        given = {"email": "jenny@example.com", **more}
        if card:
            given |= {"payment_method": card, "invoice_settings[default_payment_method]": card}
        return self.post("/v1/customers", **given)

    def subscribe(self, customer: str, price: str, **more: str) -> dict[str, Any]:
        return self.post("/v1/subscriptions", customer=customer, **{"items[0][price]": price}, **more)

    def checkout(self, price: str, mode: str = "subscription", **more: str) -> dict[str, Any]:
        return self.post(
            "/v1/checkout/sessions",
            mode=mode,
            success_url="https://shop.example/done?id={CHECKOUT_SESSION_ID}",
            cancel_url="https://shop.example/plans",
            **{"line_items[0][price]": price, "line_items[0][quantity]": "1"},
            **more,
        )

    def pay(self, session: dict[str, Any], **fields: str) -> httpx.Response:
        return httpx.post(session["url"], data={**CARD, "email": "jenny@example.com", **fields})


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()
    assert not receiver.forged, receiver.forged


class InProcess(Running):
    """A sandbox on a thread of this process: quicker to start, but it cannot be killed."""

    def start(self) -> Running:
        settings = Settings(
            state=self.state,
            base_url=self.url,
            clock_file=self.clock_file,
            webhook_url=self.webhook_url,
            webhook_secret=SECRET,
            retry=RetryPolicy(base=0.1),
        )
        config = uvicorn.Config(
            create_app(settings), host="127.0.0.1", port=self.port, log_config=None, timeout_graceful_shutdown=2
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        deadline = time.monotonic() + 30
        while not self._server.started:
            assert self._thread.is_alive(), "the sandbox ended at start"
            assert time.monotonic() < deadline, "the sandbox did not start"
            time.sleep(0.01)
        return self

    def stop(self) -> None:
        self.client.close()
        self._server.should_exit = True
        self._thread.join(30)

    def kill(self) -> None:
        raise NotImplementedError("use the fixture `process`")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One sandbox for a module's tests, which make their own customers and do not move the default clock."""
    running = InProcess(tmp_path_factory.mktemp("sandbox")).start()
    yield running
    running.stop()


@pytest.fixture
def own(tmp_path: Path, receiver: Receiver) -> Iterator[Running]:
    """A sandbox of the test's own, delivering to its receiver."""
    running = InProcess(tmp_path / "sandbox", receiver.url).start()
    yield running
    running.stop()


@pytest.fixture
def process(tmp_path: Path, receiver: Receiver) -> Iterator[Running]:
    """Like `own`, in a process that can be killed."""
    running = Running(tmp_path / "sandbox", receiver.url).start()
    yield running
    running.stop()


@pytest.fixture
def client(shop: Running) -> stripe.StripeClient:
    return stripe.StripeClient("sk_test_x", base_addresses={"api": shop.url})


@pytest.fixture
def fresh(shop: Running) -> Timeline:
    shop.control("PUT", "settings", {"retry_days": [3, 5, 7], "end_state": "cancel"})
    return Timeline(shop)
