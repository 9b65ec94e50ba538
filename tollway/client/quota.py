"""Asking quota whether usage may proceed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tollway.client.connection import Tls, check_text, check_units, new_request_id
from tollway.client.decision import Decision, LimitState, Reversal, Usage
from tollway.client.errors import InvalidArgument, QuotaError, Unavailable, from_code
from tollway.client.lease import Leases
from tollway.client.retry import retrying
from tollway.quota.v1 import guardrail_pb2
from tollway.quota.v1 import quota_pb2 as pb

__all__ = ["Quota", "Tls", "Use"]


@dataclass(frozen=True)
class Use:
    """One use in a batch. Without a `request_id` it gets one of its own."""

    account_id: str
    meter: str
    amount: int = 1
    request_id: str | None = None
    dry_run: bool = False
    key_id: str = ""


class Quota(Leases):
    """A client of tollway's quota, for one event loop and any number of tasks.

    `address` is host:port or another gRPC target; `token` is what the service knows as TOLLWAY_RPC_TOKEN; without
    `tls` the connection is plaintext. `timeout_s` is the whole time of a call, retries included.

    A call that finds the service away is tried again with growing, jittered pauses, always with the same request_id,
    so that it counts once however often it was sent. Connects at the first call; `close()`, or `async with`, ends it.
    """

    async def consume(
        self,
        account_id: str,
        meter: str,
        amount: int = 1,
        request_id: str | None = None,
        dry_run: bool = False,
        key_id: str = "",
    ) -> Decision:
        """Asks to use `amount` units (1 to 2^62), before the work. A refusal is an answer, not an error.

        `request_id` (at most 255 characters, unique per use within the account) makes your own retries safe too: a
        grant is counted once, and its repeat within 48 hours gets the first answer. None: one is made for this call.
        `dry_run` decides and counts nothing. `key_id` is the API key that the use came with (`key_…`), for limits per
        key; uses without one share such a limit among themselves.

        Raises InvalidArgument, NotFound, KeyReused, FailedPrecondition, Unauthenticated, or, when the deadline passed,
        Unavailable or DeadlineExceeded; each carries the `request_id`.
        """
        request = _to_request(Use(account_id, meter, amount, request_id, dry_run, key_id))
        answer = await self._ask(self._connected().Consume, request, request.request_id)
        return Decision.of(answer.decision, request.request_id)

    async def consume_batch(self, uses: Iterable[Use]) -> list[Decision | QuotaError]:
        """Up to 1000 independent decisions in one round trip; answers and errors stand in the places of the uses.

        What was unavailable is asked again until the deadline; then Unavailable stands in each place, with the id to
        ask again with. Raised is only what is true of the whole batch, of which then no use has an answer:
        Unauthenticated, PermissionDenied, InvalidArgument (too many uses), ResourceExhausted.
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
            answer = await self._call(method, batch, seconds)
            for (place, request), result in zip(list(requests.items()), answer.results, strict=True):
                outcome = outcomes[place] = _to_outcome(result, request.request_id)
                if not isinstance(outcome, Unavailable):
                    del requests[place]
            for place in requests:
                waiting = outcomes[place]
                assert isinstance(waiting, Unavailable)  # noqa: S101 - all others have left
                raise waiting

        if asked := list(requests):
            method = self._connected().ConsumeBatch
            try:
                await retrying(attempt, self._timeout_s, self._pace)
            except QuotaError as error:
                if not isinstance(error, Unavailable) and all(outcomes[place] is None for place in asked):
                    raise
                for place, request in requests.items():
                    if outcomes[place] is None:
                        outcomes[place] = _again(error, request.request_id)
        return [outcome for outcome in outcomes if outcome is not None]

    async def usage(self, account_id: str, key_id: str = "") -> Usage:
        """What the account has used of each meter in the period that runs now. `key_id`: whose limits per key to show.
        Raises as `consume` does.
        """
        check_text("account_id", account_id)
        check_text("key_id", key_id)
        request = pb.GetUsageRequest(account_id=account_id, key_id=key_id)
        return Usage.of(await self._ask(self._connected().GetUsage, request))

    async def reverse(self, account_id: str, request_id: str) -> Reversal:
        """Takes back what a `request_id` was granted within 48 hours, because the work behind it failed: its units
        leave every period that still runs, and its lease ends. Safe to repeat; the id stays spent.

        Raises NotFound, reason GRANT_NOT_FOUND, when nothing was granted under the id; else as `consume` does.
        """
        check_text("account_id", account_id)
        check_text("request_id", request_id)
        request = pb.ReverseRequest(account_id=account_id, request_id=request_id)
        answer = await self._ask(self._connected().Reverse, request, request_id)
        return Reversal(answer.meter, answer.amount, answer.replayed)

    async def set_cap(self, account_id: str, meter: str, limit: int | None, auto_stop: bool = True) -> LimitState:
        """Sets the account's own cap on a meter: `limit` units a period, 0 to 2^62; None removes it. In force from the
        next decision on. Without `auto_stop` it refuses nothing and is only announced (CapReached).

        Whoever lets people call this has to know that they may act for the account. Raises InvalidArgument with the
        reason CAP_NOT_OFFERED when the plan has no cap on the meter; else as `consume` does.
        """
        check_text("account_id", account_id)
        check_text("meter", meter)
        request = guardrail_pb2.SetCapRequest(account_id=account_id, meter=meter, auto_stop=auto_stop)
        if limit is not None:
            check_units("limit", limit, 0)
            request.limit = limit
        return LimitState.of((await self._ask(self._connected().SetCap, request)).cap)


def _to_request(use: Use) -> pb.ConsumeRequest:
    """The request as every attempt sends it. Raises InvalidArgument for what could not even be written down."""
    texts = {"account_id": use.account_id, "meter": use.meter, "request_id": use.request_id or "", "key_id": use.key_id}
    for name, value in texts.items():
        check_text(name, value)
    check_units("amount", use.amount, 1)
    key = use.request_id or ("" if use.dry_run else new_request_id())
    return pb.ConsumeRequest(
        account_id=use.account_id,
        meter=use.meter,
        amount=use.amount,
        request_id=key,
        dry_run=use.dry_run,
        key_id=use.key_id,
    )


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
