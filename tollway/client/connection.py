"""The connection to quota's services: one channel, made at the first call, and calls that are asked again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import uuid4

import grpc
from google.protobuf.message import Message

from tollway.client.errors import Closed, InvalidArgument, QuotaError, from_rpc_error
from tollway.client.retry import PACE, Pace, retrying
from tollway.quota.v1 import guardrail_pb2_grpc, lease_pb2_grpc, quota_pb2_grpc

MOST_UNITS = 2**62
_LOOPBACK = frozenset({"127.0.0.1", "[::1]", "localhost"})
_OPTIONS = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    # A service that was restarted is found again in a fraction of a call's deadline.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)
_CLOSED = "The client was closed before the quota service answered."

Res = TypeVar("Res", bound=Message)
log = logging.getLogger("tollway.client")


@dataclass(frozen=True)
class Tls:
    """PEM files. `Tls()` trusts the system's authorities, `ca` others; `certificate` and `key` are for mTLS."""

    ca: Path | str | None = None
    certificate: Path | str | None = None
    key: Path | str | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together: one is missing")

    def credentials(self) -> grpc.ChannelCredentials:
        """Raises OSError when a file cannot be read."""
        return grpc.ssl_channel_credentials(_read(self.ca), _read(self.key), _read(self.certificate))


def _read(path: Path | str | None) -> bytes | None:
    return Path(path).read_bytes() if path is not None else None


class Methods:
    """The RPCs of quota's services over one channel, by name."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        usage = quota_pb2_grpc.QuotaServiceStub(channel)
        leases = lease_pb2_grpc.LeaseServiceStub(channel)
        self.Consume = usage.Consume
        self.ConsumeBatch = usage.ConsumeBatch
        self.Reverse = usage.Reverse
        self.GetUsage = usage.GetUsage
        self.Acquire = leases.Acquire
        self.Renew = leases.Renew
        self.Settle = leases.Settle
        self.Release = leases.Release
        self.ListLeases = leases.ListLeases
        self.SetCap = guardrail_pb2_grpc.GuardrailServiceStub(channel).SetCap


class Connection:
    """See `tollway.client.Quota`, which is what a program makes."""

    def __init__(
        self, address: str, *, token: str = "", tls: Tls | None = None, timeout_s: float = 5.0, pace: Pace = PACE
    ) -> None:
        if not address:
            raise ValueError("an address is needed, such as 127.0.0.1:7102")
        if timeout_s <= 0:
            raise ValueError("timeout_s must be positive")
        self._address = address
        self._credentials = tls.credentials() if tls is not None else None
        if token and tls is None and address.rsplit(":", 1)[0] not in _LOOPBACK:
            log.warning("the token for %s travels in plaintext: pass tls", address)
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._timeout_s = timeout_s
        self._pace = pace
        self._channel: grpc.aio.Channel | None = None
        self._methods: Methods | None = None
        self._unfinished: set[asyncio.Task[None]] = set()
        self._closing: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Ends the connection, once what ends leases in the background is done: two calls' time at most.

        Other calls that wait raise Unavailable, reason CLOSED; leases are renewed no more. The next call would open a
        new connection.
        """
        # In a task of its own: what cancels again at every await, as anyio does, would leave the connection open.
        self._closing = asyncio.create_task(self._close(), name="close")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        if self._unfinished:
            await asyncio.wait(self._unfinished)
        channel, self._channel, self._methods = self._channel, None, None
        if channel is not None:
            await channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _go_on(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """A task that its caller's cancellation does not reach; `close` waits for it."""
        task = asyncio.create_task(work, name=name)
        self._unfinished.add(task)
        task.add_done_callback(self._unfinished.discard)
        return task

    async def _see_through(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Until it is done. It goes on when the caller is cancelled, and then its failure is logged."""
        task = self._go_on(work, name)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_log_failure)
            raise

    def _connected(self) -> Methods:
        # Not in __init__: a channel belongs to the loop that runs when it is made, and modules are imported before.
        if self._methods is None:
            if self._credentials is None:
                self._channel = grpc.aio.insecure_channel(self._address, options=_OPTIONS)
            else:
                self._channel = grpc.aio.secure_channel(self._address, self._credentials, options=_OPTIONS)
            self._methods = Methods(self._channel)
        return self._methods

    async def _call(self, method: Callable[..., Awaitable[Res]], request: Message, seconds: float) -> Res:
        try:
            return await method(request, timeout=seconds, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None
        except grpc.aio.UsageError:  # the channel's word for: it was closed before
            raise Closed(_CLOSED) from None
        except asyncio.CancelledError:
            # A channel that is closed cancels its calls, and they say so as if their task had been cancelled.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise Closed(_CLOSED) from None

    async def _ask(
        self,
        method: Callable[..., Awaitable[Res]],
        request: Message,
        request_id: str = "",
        timeout_s: float | None = None,
    ) -> Res:
        """One RPC, asked again while the service is away; errors carry the request_id.

        `method` belongs to one connection, so that after `close` no attempt opens another one.
        """

        async def attempt(seconds: float) -> Res:
            return await self._call(method, request, seconds)

        try:
            return await retrying(attempt, timeout_s or self._timeout_s, self._pace)
        except QuotaError as error:
            error.request_id = request_id
            raise


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("%s failed after its caller was cancelled: %r", task.get_name(), error)


def new_request_id() -> str:
    return uuid4().hex


def check_text(name: str, value: Any) -> None:
    """Raises InvalidArgument for what could not even be written down."""
    try:
        value.encode()
    except (AttributeError, UnicodeEncodeError):
        raise InvalidArgument(f"{name} must be text.", field=name) from None


def check_units(name: str, value: Any, least: int, most: int = MOST_UNITS) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        told = "2^62" if most == MOST_UNITS else most
        raise InvalidArgument(f"{name} must be a whole number from {least} to {told}.", field=name)
