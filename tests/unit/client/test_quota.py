"""What one call does with what it meets: retries, the key, the deadline, names for errors."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyProto
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.client.fakes import Service, Time, Wired, allowed, packed, refused, rpc_error
from tollway.client import (
    DeadlineExceeded,
    Decision,
    FailedPrecondition,
    InvalidArgument,
    KeyReused,
    LimitState,
    NotFound,
    PermissionDenied,
    Quota,
    QuotaError,
    ResourceExhausted,
    Tls,
    Unauthenticated,
    Unavailable,
    Use,
)
from tollway.quota.v1 import quota_pb2 as pb

AWAY = rpc_error(grpc.StatusCode.UNAVAILABLE, "connection refused")
LATE = rpc_error(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
STOPPED = rpc_error(grpc.StatusCode.CANCELLED, "RPC cancelled")


def store_away(after_s: float) -> grpc.aio.AioRpcError:
    wish = Duration()
    wish.FromTimedelta(timedelta(seconds=after_s))
    return rpc_error(
        grpc.StatusCode.UNAVAILABLE,
        "The decision could not be stored in time.",
        ErrorInfo(reason="STORE_UNAVAILABLE", domain="tollway"),
        RetryInfo(retry_delay=wish),
    )


async def test_every_retry_carries_the_key_of_the_first_attempt() -> None:
    service = Service([AWAY, LATE, STOPPED, AWAY, allowed(replayed=True)])
    decision = await Wired(service).consume("acct_1", "messages", 3)
    assert len(service.requests) == 5
    assert service.requests[0].request_id
    assert all(request == service.requests[0] for request in service.requests)
    assert decision.replayed
    assert decision.request_id == service.requests[0].request_id


async def test_a_given_key_is_sent_as_it_is() -> None:
    service = Service([AWAY, allowed()])
    await Wired(service).consume("acct_1", "messages", request_id="order-7")
    assert [request.request_id for request in service.requests] == ["order-7", "order-7"]


async def test_each_call_has_a_key_of_its_own() -> None:
    service = Service([allowed()])
    quota = Wired(service)
    for _ in range(3):
        await quota.consume("acct_1", "messages")
    assert len({request.request_id for request in service.requests}) == 3


async def test_a_dry_run_remembers_nothing_and_so_has_no_key() -> None:
    service = Service([allowed()])
    await Wired(service).consume("acct_1", "messages", dry_run=True)
    assert (service.requests[0].dry_run, service.requests[0].request_id) == (True, "")


@given(
    timeout_s=st.floats(0.05, 30),
    took_s=st.lists(st.floats(0, 1), min_size=1, max_size=20),
    wish_s=st.floats(0, 5),
)
async def test_a_call_never_takes_longer_than_its_deadline(
    timeout_s: float, took_s: list[float], wish_s: float
) -> None:
    time, began, spent = Time(), Time().now, iter(took_s * 2000)

    def fail(_: Any, timeout: float) -> pb.ConsumeResponse:
        assert timeout > 0
        time.now += min(next(spent), timeout)
        raise store_away(wish_s)

    with pytest.raises(Unavailable):
        await Wired(Service([fail]), time, timeout_s=timeout_s).consume("acct_1", "messages")
    assert time.now - began <= timeout_s + 1e-6


async def test_no_attempt_may_take_the_whole_deadline() -> None:
    time = Time()

    def silence(_: Any, timeout: float) -> pb.ConsumeResponse:
        time.now += timeout
        raise LATE

    service = Service([silence, allowed()])
    assert await Wired(service, time, timeout_s=5).consume("acct_1", "messages")
    assert service.timeouts[0] == 3
    assert service.timeouts[1] == pytest.approx(2 - time.slept[0])


async def test_pauses_double_up_to_a_second() -> None:
    time = Time()
    with pytest.raises(Unavailable):
        await Wired(Service([AWAY]), time, timeout_s=6).consume("acct_1", "messages")
    assert time.slept[:7] == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0])


async def test_a_pause_is_never_shorter_than_the_service_asked() -> None:
    time = Time()
    service = Service([store_away(1.5), allowed()])
    await Wired(service, time).consume("acct_1", "messages")
    assert time.slept == [pytest.approx(1.55)]


async def test_a_wait_beyond_the_deadline_is_not_begun() -> None:
    time = Time()
    with pytest.raises(Unavailable) as caught:
        await Wired(Service([store_away(60)]), time).consume("acct_1", "messages", request_id="r")
    assert time.slept == []
    assert caught.value.reason == "STORE_UNAVAILABLE"
    assert caught.value.retry_after == timedelta(seconds=60)
    assert caught.value.request_id == "r"


async def test_silence_until_the_deadline_is_deadline_exceeded_and_counts_as_unavailable() -> None:
    with pytest.raises(DeadlineExceeded) as caught:
        await Wired(Service([LATE]), timeout_s=0.1).consume("acct_1", "messages")
    assert isinstance(caught.value, Unavailable)
    assert caught.value.request_id


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidArgument),
        (grpc.StatusCode.NOT_FOUND, NotFound),
        (grpc.StatusCode.ALREADY_EXISTS, KeyReused),
        (grpc.StatusCode.FAILED_PRECONDITION, FailedPrecondition),
        (grpc.StatusCode.UNAUTHENTICATED, Unauthenticated),
        (grpc.StatusCode.PERMISSION_DENIED, PermissionDenied),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, ResourceExhausted),
        (grpc.StatusCode.INTERNAL, QuotaError),
        (grpc.StatusCode.UNIMPLEMENTED, QuotaError),
    ],
)
async def test_other_failures_are_raised_by_name_at_once(code: grpc.StatusCode, kind: type[QuotaError]) -> None:
    service = Service([rpc_error(code, "Said.", ErrorInfo(reason="SOME_REASON", domain="tollway"))])
    with pytest.raises(QuotaError) as caught:
        await Wired(service).consume("acct_1", "messages")
    assert type(caught.value) is kind
    assert (caught.value.reason, str(caught.value)) == ("SOME_REASON", "Said.")
    assert len(service.requests) == 1


async def test_an_error_names_the_field_at_fault() -> None:
    violation = BadRequest.FieldViolation(field="meter", description="No such meter.")
    info = ErrorInfo(reason="UNKNOWN_METER", domain="tollway")
    error = rpc_error(grpc.StatusCode.INVALID_ARGUMENT, "No.", info, BadRequest(field_violations=[violation]))
    with pytest.raises(InvalidArgument) as caught:
        await Wired(Service([error])).consume("acct_1", "nonsense")
    assert (caught.value.reason, caught.value.field) == ("UNKNOWN_METER", "meter")


async def test_what_grpc_itself_says_is_not_passed_on() -> None:
    foreign = rpc_error(grpc.StatusCode.UNAVAILABLE, "failed to connect to ipv4:10.1.2.3:7102")
    with pytest.raises(Unavailable) as caught:
        await Wired(Service([foreign]), timeout_s=0.1).consume("acct_1", "messages")
    assert "10.1.2.3" not in str(caught.value)


@pytest.mark.parametrize(
    "details",
    [
        b"\xff\xff\xff",
        Status(details=[AnyProto(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff")]),
        Status(details=[AnyProto(type_url="type.googleapis.com/google.rpc.RetryInfo", value=b"\xff")]),
        Status(details=[packed(RetryInfo(retry_delay=Duration(seconds=2**62)))]),
    ],
)
async def test_details_that_nobody_can_read_are_as_good_as_none(details: bytes | Status) -> None:
    sent = details if isinstance(details, bytes) else details.SerializeToString()
    trailing = grpc.aio.Metadata(("grpc-status-details-bin", sent))
    error = grpc.aio.AioRpcError(grpc.StatusCode.PERMISSION_DENIED, None, trailing, "Odd.")
    with pytest.raises(PermissionDenied) as caught:
        await Wired(Service([error])).consume("acct_1", "messages")
    assert (caught.value.reason, caught.value.field, caught.value.retry_after) == ("PERMISSION_DENIED", "", None)


@pytest.mark.parametrize("amount", [0, -1, 2**62 + 1, 2**63, 1.0, True, "1"])
async def test_an_amount_that_is_none_is_refused_before_it_is_sent(amount: Any) -> None:
    service = Service([allowed()])
    with pytest.raises(InvalidArgument) as caught:
        await Wired(service).consume("acct_1", "messages", amount)
    assert caught.value.field == "amount"
    assert service.requests == []


async def test_text_that_is_not_utf8_is_refused_by_the_name_of_its_field() -> None:
    quota = Wired(Service([allowed()]))
    with pytest.raises(InvalidArgument) as caught:
        await quota.consume("\udc80", "messages")
    assert caught.value.field == "account_id"
    with pytest.raises(InvalidArgument) as caught:
        await quota.usage("\udc80")
    assert caught.value.field == "account_id"


async def test_a_refusal_is_an_answer_that_reads_as_no() -> None:
    decision = await Wired(Service([refused(retry_after=Duration(seconds=60))])).consume("acct_1", "messages")
    assert not decision
    assert decision.allowed is False
    assert (decision.reason, decision.http_status) == ("message_quota_exceeded", 402)
    assert decision.binding == LimitState("messages_per_month", 100, 100, 0, None)
    assert decision.limits[1] == LimitState("messages_for_life", 100, None, None, None)
    assert decision.retry_after == timedelta(seconds=60)
    assert decision.billing_url == "https://pay.example/billing"


async def test_a_grant_reads_as_yes_and_says_200() -> None:
    reset = Timestamp(seconds=1_800_000_000)
    limit = pb.LimitState(name="m", used=1, limit=5, remaining=4, reset_time=reset)
    decision = await Wired(Service([allowed(limits=[limit])])).consume("acct_1", "messages")
    assert decision
    assert (decision.http_status, decision.reason, decision.tier, decision.version) == (200, "", "pro", 3)
    assert decision.limits == (LimitState("m", 1, 5, 4, datetime.fromtimestamp(1_800_000_000, UTC)),)
    assert decision.binding is None


async def test_a_status_that_is_no_refusal_becomes_429() -> None:
    assert (await Wired(Service([refused(200)])).consume("acct_1", "messages")).http_status == 429


async def test_the_token_goes_with_every_attempt() -> None:
    service = Service([AWAY, allowed()])
    await Wired(service, token="t0ken").consume("acct_1", "messages")
    assert service.metadata == [(("authorization", "Bearer t0ken"),)] * 2


async def test_usage_is_told_per_meter() -> None:
    meter = pb.MeterUsage(meter="messages", used=7, limit=10, remaining=3)
    service = Service([AWAY, pb.GetUsageResponse(account_id="acct_1", tier="free", version=2, meters=[meter])])
    usage = await Wired(service).usage("acct_1")
    assert (usage.account_id, usage.tier, usage.version) == ("acct_1", "free", 2)
    assert (usage.meter("messages").used, usage.meter("messages").remaining) == (7, 3)
    with pytest.raises(KeyError):
        usage.meter("other")


def batch_error(code: grpc.StatusCode, reason: str) -> pb.ConsumeResult:
    return pb.ConsumeResult(error=pb.ConsumeError(code=code.value[0], reason=reason, message="No."))


async def test_a_batch_asks_again_only_for_what_was_unavailable_under_the_same_ids() -> None:
    yes, no = pb.ConsumeResult(decision=allowed().decision), pb.ConsumeResult(decision=refused().decision)
    full = batch_error(grpc.StatusCode.UNAVAILABLE, "QUEUE_FULL")
    stranger = batch_error(grpc.StatusCode.NOT_FOUND, "ACCOUNT_NOT_FOUND")
    service = Service(
        [
            AWAY,
            pb.ConsumeBatchResponse(results=[yes, full, stranger, full]),
            pb.ConsumeBatchResponse(results=[no, full]),
            pb.ConsumeBatchResponse(results=[yes]),
        ]
    )
    uses = [Use("a", "m"), Use("b", "m"), Use("zero", "m", 0), Use("c", "m"), Use("d", "m", 2, "mine")]
    first, second, invalid, third, fourth = await Wired(service).consume_batch(uses)
    assert isinstance(first, Decision)
    assert first
    assert isinstance(second, Decision)
    assert not second
    assert isinstance(invalid, InvalidArgument)
    assert isinstance(third, NotFound)
    assert isinstance(fourth, Decision)
    assert fourth.request_id == "mine"
    asked = [[request.account_id for request in each.requests] for each in service.requests]
    assert asked == [["a", "b", "c", "d"], ["a", "b", "c", "d"], ["b", "d"], ["d"]]
    ids = {request.account_id: request.request_id for request in service.requests[0].requests}
    assert all(ids[request.account_id] == request.request_id for each in service.requests for request in each.requests)
    assert len(set(ids.values())) == 4


async def test_what_stays_unavailable_in_a_batch_is_an_error_in_its_place() -> None:
    yes, full = pb.ConsumeResult(decision=allowed().decision), batch_error(grpc.StatusCode.UNAVAILABLE, "QUEUE_FULL")
    service = Service([pb.ConsumeBatchResponse(results=[yes, full]), AWAY])
    granted, missing = await Wired(service, timeout_s=1).consume_batch([Use("a", "m"), Use("b", "m", 1, "mine")])
    assert isinstance(granted, Decision)
    assert isinstance(missing, Unavailable)
    assert (missing.reason, missing.request_id) == ("QUEUE_FULL", "mine")


async def test_a_batch_that_nobody_answers_has_in_each_place_the_id_to_ask_again_with() -> None:
    service = Service([AWAY])
    first, mine = await Wired(service, timeout_s=1).consume_batch([Use("a", "m"), Use("b", "m", 1, "mine")])
    assert isinstance(first, Unavailable)
    assert isinstance(mine, Unavailable)
    sent = [request.request_id for request in service.requests[0].requests]
    assert [first.request_id, mine.request_id] == sent
    assert mine.request_id == "mine"


@pytest.mark.parametrize("uses", [[Use("a", "m")], [Use("a", "m"), Use("zero", "m", 0)]])
async def test_what_is_true_of_the_whole_batch_is_raised(uses: list[Use]) -> None:
    with pytest.raises(Unauthenticated):
        await Wired(Service([rpc_error(grpc.StatusCode.UNAUTHENTICATED)])).consume_batch(uses)


async def test_a_batch_that_has_answers_gives_them_whatever_comes_then() -> None:
    yes, full = pb.ConsumeResult(decision=allowed().decision), batch_error(grpc.StatusCode.UNAVAILABLE, "QUEUE_FULL")
    answers = [pb.ConsumeBatchResponse(results=[yes, full]), rpc_error(grpc.StatusCode.UNAUTHENTICATED)]
    granted, missing = await Wired(Service([*answers])).consume_batch([Use("a", "m"), Use("b", "m", 1, "mine")])
    assert isinstance(granted, Decision)
    assert isinstance(missing, Unavailable)
    assert missing.request_id == "mine"


async def test_an_empty_batch_asks_nobody() -> None:
    service = Service([AWAY])
    assert await Wired(service).consume_batch([]) == []
    assert service.requests == []


def test_half_a_client_certificate_is_an_error() -> None:
    with pytest.raises(ValueError, match="belong together"):
        Tls(certificate="client.crt")


def test_a_token_in_plaintext_beyond_loopback_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    Quota("127.0.0.1:7102", token="t0ken")
    assert not caplog.records
    Quota("quota.example:7102", token="t0ken")
    assert "plaintext" in caplog.text
    assert "t0ken" not in caplog.text
