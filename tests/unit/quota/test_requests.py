"""What a caller may send: each fault is named by its field, before anything is queued."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Sequence
from typing import Any

import pytest

from services.kit.errors import InvalidArgument, TollwayError
from services.quota import application
from services.quota.domain import Decision, LimitState, Outcome, Unknown, Use
from services.quota.errors import AccountNotFound, BillingUnavailable, QueueFull
from services.quota.grpc_server import QuotaServicer, to_use
from tollway.quota.v1 import quota_pb2


def request(**changes: Any) -> quota_pb2.ConsumeRequest:
    fields: dict[str, Any] = {"account_id": "acct_a", "meter": "messages", "amount": 1, "request_id": "r"}
    return quota_pb2.ConsumeRequest(**(fields | changes))


@pytest.mark.parametrize(
    ("changes", "field", "reason"),
    [
        ({"account_id": ""}, "account_id", "INVALID_ARGUMENT"),
        ({"account_id": "a" * 256}, "account_id", "INVALID_ARGUMENT"),
        ({"account_id": "a\0b"}, "account_id", "INVALID_ARGUMENT"),
        ({"meter": ""}, "meter", "UNKNOWN_METER"),
        ({"amount": 0}, "amount", "INVALID_ARGUMENT"),
        ({"amount": -1}, "amount", "INVALID_ARGUMENT"),
        ({"amount": 2**62 + 1}, "amount", "INVALID_ARGUMENT"),
        ({"request_id": "r" * 256}, "request_id", "INVALID_ARGUMENT"),
        ({"request_id": "\x1fmine"}, "request_id", "INVALID_ARGUMENT"),
        ({"request_id": "a\0b"}, "request_id", "INVALID_ARGUMENT"),
    ],
)
def test_a_fault_is_named_by_its_field(changes: dict[str, Any], field: str, reason: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        to_use(request(**changes))
    assert (caught.value.field, caught.value.error_reason) == (field, reason)


def test_the_bounds_themselves_are_taken() -> None:
    assert to_use(request(amount=2**62, request_id="ü" * 255)) == Use("acct_a", "messages", 2**62, "ü" * 255)
    assert to_use(request(request_id="")).key == ""


class Decider:
    """Knows the accounts in `known`; allows everything."""

    def __init__(self, *known: str) -> None:
        self.known = set(known)
        self.asked: list[Use] = []

    def decide(self, uses: Sequence[Use], time_left_s: float | None) -> Awaitable[list[Outcome]]:
        async def answer() -> list[Outcome]:
            self.asked += uses
            state = LimitState("messages", 1, None, None)
            return [Decision("free", 1, [state]) if use.account_id in self.known else Unknown() for use in uses]

        return answer()


class Directory:
    """Billing knows `there`; what is learned, the decider knows from then on."""

    def __init__(self, decider: Decider, *there: str, error: TollwayError | None = None) -> None:
        self._decider = decider
        self._there = set(there)
        self._error = error

    async def learn(self, account_ids: Iterable[str]) -> set[str]:
        if self._error is not None:
            raise self._error
        found = self._there & set(account_ids)
        self._decider.known |= found
        return found


async def test_an_account_that_is_new_here_is_learned_and_decided() -> None:
    decider = Decider()
    use = Use("acct_new", "messages", 1)
    decision = await application.consume(use, decider, Directory(decider, "acct_new"), None)
    assert decision.allowed
    with pytest.raises(AccountNotFound):
        await application.consume(Use("acct_x", "messages", 1), decider, Directory(decider), None)


async def test_in_a_batch_only_strangers_suffer_when_billing_is_away() -> None:
    decider = Decider("acct_a")
    servicer = QuotaServicer(decider, Directory(decider, error=BillingUnavailable()), lambda: pytest.fail("no read"))
    batch = quota_pb2.ConsumeBatchRequest(
        requests=[request(), request(account_id="acct_x"), request(amount=0), request(request_id="s")]
    )
    answer = await servicer.ConsumeBatch(batch, no_deadline())
    kinds = [result.WhichOneof("result") for result in answer.results]
    assert kinds == ["decision", "error", "error", "decision"]
    stranger, fault = answer.results[1].error, answer.results[2].error
    assert (stranger.code, stranger.reason) == (14, "BILLING_UNAVAILABLE")
    assert (fault.code, fault.field) == (3, "amount")


@pytest.mark.parametrize("count", [0, 1001])
async def test_a_batch_holds_1_to_1000(count: int) -> None:
    decider = Decider("acct_a")
    servicer = QuotaServicer(decider, Directory(decider), lambda: pytest.fail("no read"))
    with pytest.raises(InvalidArgument) as caught:
        await servicer.ConsumeBatch(quota_pb2.ConsumeBatchRequest(requests=[request()] * count), no_deadline())
    assert caught.value.field == "requests"
    assert not decider.asked


async def test_unlimited_is_an_unset_limit_and_never_a_number() -> None:
    decider = Decider("acct_a")
    servicer = QuotaServicer(decider, Directory(decider), lambda: pytest.fail("no read"))
    decision = (await servicer.Consume(request(), no_deadline())).decision
    [state] = decision.limits
    assert decision.allowed
    assert not state.HasField("limit")
    assert not state.HasField("remaining")
    assert not state.HasField("reset_time")


def test_a_full_queue_says_when_to_come_back() -> None:
    error = QueueFull()
    assert (error.code, error.error_reason) == ("UNAVAILABLE", "QUEUE_FULL")
    assert error.retry_after is not None
    assert error.retry_after.total_seconds() > 0


class _Call:
    """As much of a gRPC context as the servicer looks at: no deadline."""

    def time_remaining(self) -> float | None:
        return None


def no_deadline() -> Any:
    return _Call()
