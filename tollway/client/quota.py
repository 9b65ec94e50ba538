"""Asking quota whether usage may proceed."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from uuid import uuid4

import grpc
from google.protobuf.message import Message

from tollway.client.decision import Decision, Usage
from tollway.client.errors import InvalidArgument, QuotaError, Unavailable, from_code, from_rpc_error
from tollway.client.retry import PACE, Pace, retrying
from tollway.quota.v1 import quota_pb2 as pb
from tollway.quota.v1 import quota_pb2_grpc

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


@dataclass(frozen=True)
class Use:
    """One use in a batch. Without a `request_id` it gets one of its own."""

    account_id: str
    meter: str
    amount: int = 1
    request_id: str | None = None
    dry_run: bool = False


class Quota:
    """A client of `tollway.quota.v1.QuotaService`, for one event loop and any number of tasks.

    `address` is host:port or another gRPC target; `token` is what the service knows as TOLLWAY_RPC_TOKEN; without
    `tls` the connection is plaintext. `timeout_s` is the whole time of a call, retries included.

    A call that finds the service away is tried again with growing, jittered pauses, always with the same request_id,
    so that it counts once however often it was sent. Connects at the first call; `close()`, or `async with`, ends it.
    """

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
        self._stub: quota_pb2_grpc.QuotaServiceStub | None = None

    async def consume(
        self,
        account_id: str,
        meter: str,
        amount: int = 1,
        request_id: str | None = None,
        dry_run: bool = False,
    ) -> Decision:
        """Asks to use `amount` units (1 to 2^62), before the work. A refusal is an answer, not an error.

        `request_id` (at most 255 characters, unique per use within the account) makes your own retries safe too: a
        grant is counted once, and its repeat within 48 hours gets the first answer. None: one is made for this call.
        `dry_run` decides and counts nothing.

        Raises InvalidArgument, NotFound, KeyReused, FailedPrecondition, Unauthenticated, or, when the deadline passed,
        Unavailable or DeadlineExceeded; each carries the `request_id`.
        """
        request = _to_request(Use(account_id, meter, amount, request_id, dry_run))

        async def attempt(seconds: float) -> pb.ConsumeResponse:
            return await self._call(self._connected().Consume, request, seconds)

        try:
            answer = await retrying(attempt, self._timeout_s, self._pace)
        except QuotaError as error:
            error.request_id = request.request_id
            raise
        return Decision.of(answer.decision, request.request_id)

    async def consume_batch(self, uses: Iterable[Use]) -> list[Decision | QuotaError]:
        """Up to 1000 independent decisions in one round trip; answers and errors stand in the places of the uses.

        What was unavailable is asked again, with the same ids, until the deadline. Raises what `consume` raises only
        if it is true of the whole batch: then no use has an answer.
        """
        outcomes: list[Decision | QuotaError | None] = []
        requests: dict[int, pb.ConsumeRequest] = {}  # what waits for its answer, by place
        for place, use in enumerate(uses):
            outcomes.append(None)
            try:
                requests[place] = _to_request(use)
            except InvalidArgument as error:
                error.request_id = use.request_id or ""
                outcomes[place] = error

        async def attempt(seconds: float) -> None:
            batch = pb.ConsumeBatchRequest(requests=requests.values())
            answer = await self._call(self._connected().ConsumeBatch, batch, seconds)
            for (place, request), result in zip(list(requests.items()), answer.results, strict=True):
                outcome = outcomes[place] = _to_outcome(result, request.request_id)
                if not isinstance(outcome, Unavailable):
                    del requests[place]
            for place in requests:
                waiting = outcomes[place]
                assert isinstance(waiting, Unavailable)  # noqa: S101 - all others have left
                raise waiting

        if requests:
            try:
                await retrying(attempt, self._timeout_s, self._pace)
            except QuotaError as error:
                if all(outcome is None for outcome in outcomes):
                    raise
                for place, request in requests.items():
                    if outcomes[place] is None:
                        outcomes[place] = _again(error, request.request_id)
        return [outcome for outcome in outcomes if outcome is not None]

    async def usage(self, account_id: str) -> Usage:
        """What the account has used of each meter in the period that runs now. Raises as `consume` does."""
        _check_text("account_id", account_id)
        request = pb.GetUsageRequest(account_id=account_id)

        async def attempt(seconds: float) -> pb.GetUsageResponse:
            return await self._call(self._connected().GetUsage, request, seconds)

        return Usage.of(await retrying(attempt, self._timeout_s, self._pace))

    async def close(self) -> None:
        """Ends the connection. The next call would open a new one."""
        channel, self._channel, self._stub = self._channel, None, None
        if channel is not None:
            await channel.close()

    async def __aenter__(self) -> Quota:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _connected(self) -> quota_pb2_grpc.QuotaServiceStub:
        # Not in __init__: a channel belongs to the loop that runs when it is made, and modules are imported before.
        if self._stub is None:
            if self._credentials is None:
                self._channel = grpc.aio.insecure_channel(self._address, options=_OPTIONS)
            else:
                self._channel = grpc.aio.secure_channel(self._address, self._credentials, options=_OPTIONS)
            self._stub = quota_pb2_grpc.QuotaServiceStub(self._channel)
        return self._stub

    async def _call(self, method: Callable[..., Awaitable[Res]], request: Message, seconds: float) -> Res:
        try:
            return await method(request, timeout=seconds, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None


def _to_request(use: Use) -> pb.ConsumeRequest:
    """The request as every attempt sends it. Raises InvalidArgument for what could not even be written down."""
    for name, value in (("account_id", use.account_id), ("meter", use.meter), ("request_id", use.request_id or "")):
        _check_text(name, value)
    amount: Any = use.amount
    if not isinstance(amount, int) or isinstance(amount, bool) or not 1 <= amount <= MOST_UNITS:
        raise InvalidArgument("amount must be a whole number from 1 to 2^62.", field="amount")
    key = use.request_id or ("" if use.dry_run else uuid4().hex)
    return pb.ConsumeRequest(
        account_id=use.account_id, meter=use.meter, amount=amount, request_id=key, dry_run=use.dry_run
    )


def _check_text(name: str, value: Any) -> None:
    try:
        value.encode()
    except (AttributeError, UnicodeEncodeError):
        raise InvalidArgument(f"{name} must be text.", field=name) from None


def _to_outcome(result: pb.ConsumeResult, request_id: str) -> Decision | QuotaError:
    if result.WhichOneof("result") == "decision":
        return Decision.of(result.decision, request_id)
    told = result.error
    error = from_code(told.code, told.reason, told.message, told.field)
    error.request_id = request_id
    return error


def _again(error: QuotaError, request_id: str) -> QuotaError:
    """The same error for another place."""
    copy = type(error)(error.message, reason=error.reason, field=error.field, retry_after=error.retry_after)
    copy.request_id = request_id
    return copy
