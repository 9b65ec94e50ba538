"""notify as a real process, between a real stream, a real database and a mail server that does as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any, cast

import asyncpg
import grpc
import nats
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2, health_pb2_grpc
from nats.js.errors import NotFoundError

from local import ports
from local.blocking import run_apart
from services.kit.outbox import Envelope as Event
from services.kit.stream import NAME, Stream
from services.notify.consumer import DURABLE
from services.notify.events import account_of
from tests.infra.servers import Templates
from tollway.billing.v1 import recipient_pb2, recipient_pb2_grpc
from tollway.billing.v1.events_pb2 import Brand, Invoice, InvoicePaid, InvoicePaymentFailed
from tollway.billing.v1.recipient_pb2 import Recipient
from tollway.notify.v1 import notify_pb2 as pb
from tollway.notify.v1.notify_pb2_grpc import NotifyServiceStub

ROOT = Path(__file__).parents[3]


class Inboxes:
    """A mail server. `answers` are given to the next messages' content, `refuse` to recipients; hooks run first."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.times: list[float] = []
        self.envelopes: list[Envelope] = []
        self.answers: list[str] = []
        self.refuse: dict[str, str] = {}
        self.on_content: Callable[[], Awaitable[None]] | None = None
        self.hang_for: set[str] = set()

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.hang_for:
            await asyncio.Event().wait()
        if address in self.refuse:
            return self.refuse[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self.on_content is not None:
            await self.on_content()
        if self.answers and not (answer := self.answers.pop(0)).startswith("250"):
            return answer
        self.times.append(time.time())
        self.envelopes.append(envelope)
        self.mails.append(message_from_bytes(cast(bytes, envelope.content), policy=policy.default))
        return "250 taken"

    async def wait(self, count: int, within: float = 15) -> list[EmailMessage]:
        await until(lambda: len(self.mails) >= count, within)
        return self.mails


async def until(condition: Callable[[], Any], within: float = 15) -> None:
    """Polls, because the condition is another process's doing."""
    async with asyncio.timeout(within):
        while True:
            outcome = condition()
            if asyncio.iscoroutine(outcome):
                outcome = await outcome
            if outcome:
                return
            await asyncio.sleep(0.01)


class _Controller(Controller):
    """Hangs up on everybody when it stops; aiosmtpd would leave open connections to the garbage collector."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._protocols: list[SMTP] = []

    def factory(self) -> SMTP:
        self._protocols.append(super().factory())  # type: ignore[no-untyped-call]
        return self._protocols[-1]

    def stop(self, no_assert: bool = False) -> None:
        asyncio.run_coroutine_threadsafe(self._hang_up(), self.loop).result(5)
        super().stop(no_assert)

    async def _hang_up(self) -> None:
        for protocol in self._protocols:
            if protocol.transport is not None:
                with contextlib.suppress(AttributeError):  # Python 3.11's abort of a TLS connection that is closed
                    protocol.transport.abort()  # type: ignore[attr-defined]
        await asyncio.sleep(0)  # the loop's next turn, in which the transports close


@contextlib.contextmanager
def serving(catcher: Inboxes, port: int, *, smtputf8: bool = True, **options: Any) -> Iterator[None]:
    controller = _Controller(catcher, hostname="127.0.0.1", port=port, enable_SMTPUTF8=smtputf8, **options)
    controller.start()
    try:
        yield
    finally:
        controller.stop()


class Notify:
    """The service's process and what one can ask it."""

    def __init__(self, env: dict[str, str], folder: Path) -> None:
        self.env = env
        self.folder = folder
        self.port = int(env["TOLLWAY_NOTIFY_PORT"])
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(  # noqa: ASYNC220 - starting takes a moment, waiting is awaited
                [sys.executable, "-m", "services.notify.main"], cwd=ROOT, env=self.env, stdout=log, stderr=log
            )
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            check = health_pb2_grpc.HealthStub(channel).Check
            async with asyncio.timeout(30):
                while True:
                    assert self.process.poll() is None, self.log()
                    try:
                        await check(health_pb2.HealthCheckRequest(), timeout=1)
                        return
                    except grpc.aio.AioRpcError:
                        await asyncio.sleep(0.02)

    async def died(self) -> int:
        """Waits for the process to end by itself."""
        process = self.process
        assert process is not None
        await until(lambda: process.poll() is not None)
        return cast(int, process.returncode)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def arm(self, failpoint: str) -> None:
        (self.folder / "failpoints" / failpoint).write_text("")

    def log(self) -> str:
        return (self.folder / "log").read_text()

    async def messages(self, **filters: Any) -> pb.ListMessagesResponse:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            return await NotifyServiceStub(channel).ListMessages(pb.ListMessagesRequest(**filters), timeout=5)

    async def state(self, invoice: str, kind: str = "receipt") -> str:
        """The state's name, or an empty string when there is no such message."""
        found = [m for m in (await self.messages(page_size=500)).messages if (m.subject_id, m.kind) == (invoice, kind)]
        assert len(found) <= 1
        return pb.MessageState.Name(found[0].state).removeprefix("MESSAGE_STATE_") if found else ""

    async def reaches(self, state: str, invoice: str, kind: str = "receipt") -> None:
        async def there() -> bool:
            try:
                return await self.state(invoice, kind) == state
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNAVAILABLE:  # its database was cut off by the test
                    return False
                raise

        await until(there, 20)


class Billing(recipient_pb2_grpc.RecipientServiceServicer):
    """What notify asks of billing, over gRPC, on a port of its own. `down`: it answers that it cannot."""

    def __init__(self) -> None:
        self.recipients: dict[str, Recipient] = {}
        self.down = False
        self.asked = 0

    def GetRecipient(self, request: Any, context: Any) -> recipient_pb2.GetRecipientResponse:  # noqa: N802
        self.asked += 1
        if self.down:
            context.abort(grpc.StatusCode.UNAVAILABLE, "down")
        if request.account_id not in self.recipients:
            context.abort(grpc.StatusCode.NOT_FOUND, "There is no such account.")
        return recipient_pb2.GetRecipientResponse(recipient=self.recipients[request.account_id])


@contextlib.contextmanager
def answering(billing: Billing, port: int) -> Iterator[None]:
    server = grpc.server(ThreadPoolExecutor(4))
    recipient_pb2_grpc.add_RecipientServiceServicer_to_server(billing, server)  # type: ignore[no-untyped-call]
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield
    finally:
        server.stop(None).wait()


def made(folder: Path, dsn: str, nats_url: str, smtp_port: int, billing_port: int = 1) -> Notify:
    """A service that has not started yet; its log and failpoints are in `folder`."""
    (folder / "failpoints").mkdir(parents=True)
    env = {name: value for name, value in os.environ.items() if not name.startswith("TOLLWAY_")} | {
        "TOLLWAY_LOCAL": "1",
        "TOLLWAY_NOTIFY_DSN": dsn,
        "TOLLWAY_NOTIFY_PORT": str(ports.reserve()),
        "TOLLWAY_NOTIFY_METRICS_PORT": "0",
        "TOLLWAY_NATS_URL": nats_url,
        "TOLLWAY_SMTP_URL": f"smtp://127.0.0.1:{smtp_port}",
        "TOLLWAY_BILLING_ADDR": f"127.0.0.1:{billing_port}",
        "TOLLWAY_FAILPOINTS": str(folder / "failpoints"),
    }
    return Notify(env, folder)


async def new_stream(nats_url: str) -> None:
    """Deletes the stream with all that is in it; whoever comes next makes it anew."""
    client = await nats.connect(nats_url)
    with contextlib.suppress(NotFoundError):
        await client.jetstream().delete_stream(NAME)
    await client.close()


@pytest.fixture
def smtp_port() -> int:
    return ports.reserve()


@dataclass
class Shared:
    """A service for a module's tests, which leave it without a message or an event."""

    notify: Notify
    inboxes: Inboxes
    dsn: str
    nats_url: str
    billing: Billing

    async def clear(self) -> None:
        """Waits until nothing is under way, and forgets everything."""
        client = await nats.connect(self.nats_url)
        connection = await asyncpg.connect(self.dsn.replace("+asyncpg", ""))

        async def quiet() -> bool:
            events = await client.jetstream().consumer_info(NAME, DURABLE)
            under_way = await connection.fetchval("SELECT count(*) FROM messages WHERE state IN ('pending', 'sending')")
            return (events.num_pending, events.num_ack_pending, under_way) == (0, 0, 0)

        try:
            await until(quiet)
            await connection.execute("TRUNCATE messages, inbox, resends, erased_accounts")
            self.inboxes.__init__()  # type: ignore[misc]
            self.billing.__init__()  # type: ignore[misc]
        finally:
            await connection.close()
            await client.close()


@pytest.fixture(scope="module")
def shared(templates: Templates, nats_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    run_apart(new_stream(nats_url))
    inboxes, port = Inboxes(), ports.reserve()
    billing, billing_port = Billing(), ports.reserve()
    with templates.copy("notify") as dsn, serving(inboxes, port), answering(billing, billing_port):
        notify = made(tmp_path_factory.mktemp("notify"), dsn, nats_url, port, billing_port)
        try:
            run_apart(notify.start())
            yield Shared(notify, inboxes, dsn, nats_url, billing)
        finally:
            notify.kill()


@pytest.fixture
async def notify(shared: Shared) -> AsyncIterator[Notify]:
    """The service that the module's tests share, which knows of nothing yet."""
    yield shared.notify
    await shared.clear()


@pytest.fixture
def inboxes(shared: Shared) -> Inboxes:
    return shared.inboxes


@pytest.fixture
def billing(shared: Shared) -> Billing:
    return shared.billing


Publish = Callable[..., Awaitable[str]]


@pytest.fixture
async def publish(nats_url: str) -> AsyncIterator[Publish]:
    """Publishes an event as billing's relay does; returns its id."""
    stream = Stream(nats_url, name="test")
    stream.start()

    async def send(message: Message, event_id: str = "") -> str:
        envelope = Event.of(message, account_of(message))
        headers = envelope.headers()
        if event_id:
            headers |= {"ce-id": event_id, "Nats-Msg-Id": f"{event_id}/{time.monotonic_ns()}"}
        await stream.publish(envelope.subject, envelope.data, headers)
        return headers["ce-id"]

    yield send
    await stream.close()


def stamp(text: str) -> Timestamp:
    time_stamp = Timestamp()
    time_stamp.FromJsonString(text)
    return time_stamp


BRAND = Brand(
    name="Skytale",
    support_contact="mailto:support@skytale.example",
    color="#4f46e5",
    billing_url="https://skytale.example/billing",
)


def invoice(number: int = 1, **changes: Any) -> Invoice:
    facts: dict[str, Any] = {
        "id": f"in_{number}",
        "account_id": "acct_1",
        "number": f"ABCD1234-{number:04}",
        "amount_due": 2900,
        "amount_paid": 2900,
        "currency": "usd",
        "hosted_invoice_url": f"https://invoice.example/i/{number}",
        "invoice_pdf_url": f"https://invoice.example/i/{number}/pdf",
        "customer_email": "ada@example.com",
        "account_name": "Ada & Sons",
        "brand": BRAND,
    }
    return Invoice(**(facts | changes))


def paid(number: int = 1, **changes: Any) -> InvoicePaid:
    return InvoicePaid(invoice=invoice(number, **changes), paid_time=stamp("2026-03-01T12:00:00Z"))


def failed(number: int = 1, **changes: Any) -> InvoicePaymentFailed:
    return InvoicePaymentFailed(
        invoice=invoice(number, amount_paid=0, **changes),
        attempt_count=1,
        next_attempt_time=stamp("2026-03-04T12:00:00Z"),
        grace_days=7,
        grace_end_time=stamp("2026-03-08T12:00:00Z"),
    )
