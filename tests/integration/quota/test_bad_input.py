"""What every RPC of quota answers to requests that are wrong: the status, ErrorInfo's reason, the field's name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status

from local.blocking import run_apart
from tests.contract.quota.test_commands import guarded
from tests.infra.servers import Templates
from tests.integration.quota import envoy_world, world
from tollway.quota.v1 import (
    guardrail_pb2,
    guardrail_pb2_grpc,
    kill_switch_pb2,
    kill_switch_pb2_grpc,
    lease_pb2,
    lease_pb2_grpc,
    outbox_pb2,
    outbox_pb2_grpc,
    quota_pb2,
    quota_pb2_grpc,
)

STUBS = {
    "Consume": (quota_pb2_grpc.QuotaServiceStub, quota_pb2.ConsumeRequest),
    "ConsumeBatch": (quota_pb2_grpc.QuotaServiceStub, quota_pb2.ConsumeBatchRequest),
    "Reverse": (quota_pb2_grpc.QuotaServiceStub, quota_pb2.ReverseRequest),
    "GetUsage": (quota_pb2_grpc.QuotaServiceStub, quota_pb2.GetUsageRequest),
    "Acquire": (lease_pb2_grpc.LeaseServiceStub, lease_pb2.AcquireRequest),
    "Renew": (lease_pb2_grpc.LeaseServiceStub, lease_pb2.RenewRequest),
    "Settle": (lease_pb2_grpc.LeaseServiceStub, lease_pb2.SettleRequest),
    "Release": (lease_pb2_grpc.LeaseServiceStub, lease_pb2.ReleaseRequest),
    "ListLeases": (lease_pb2_grpc.LeaseServiceStub, lease_pb2.ListLeasesRequest),
    "SetCap": (guardrail_pb2_grpc.GuardrailServiceStub, guardrail_pb2.SetCapRequest),
    "AdjustAllowance": (guardrail_pb2_grpc.GuardrailServiceStub, guardrail_pb2.AdjustAllowanceRequest),
    "SetKillSwitch": (kill_switch_pb2_grpc.KillSwitchServiceStub, kill_switch_pb2.SetKillSwitchRequest),
    "GetKillSwitch": (kill_switch_pb2_grpc.KillSwitchServiceStub, kill_switch_pb2.GetKillSwitchRequest),
    "RepublishEvents": (outbox_pb2_grpc.OutboxServiceStub, outbox_pb2.RepublishEventsRequest),
}
# A request of each that is right.
RIGHT: dict[str, dict[str, Any]] = {
    "Consume": {"account_id": "acct_a", "meter": "messages", "amount": 1},
    "Reverse": {"account_id": "acct_a", "request_id": "granted"},
    "GetUsage": {"account_id": "acct_a"},
    "Acquire": {"account_id": "acct_a", "meter": "messages", "amount": 1, "reserve": 1},
    "Renew": {"account_id": "acct_a", "lease_id": "lease"},
    "Settle": {"account_id": "acct_a", "lease_id": "lease", "amount": 1},
    "Release": {"account_id": "acct_a", "lease_id": "lease"},
    "ListLeases": {"account_id": "acct_a"},
    "SetCap": {"account_id": "acct_a", "meter": "messages", "limit": 5, "auto_stop": True},
    "AdjustAllowance": {"account_id": "acct_a", "allowance": "models", "add": 1},
    "SetKillSwitch": {"meter": "calls", "enabled": True, "reason": "incident"},
    "RepublishEvents": {},
}
LONG = "x" * 256
ODD_TEXTS = ["", "a\x00b", "a\x1db", "a\x1fb", "a\nb", "a\x7fb", LONG]
ODD_OPTIONAL = ODD_TEXTS[1:]  # where empty means none


def durations() -> list[dict[str, int]]:
    """Too short, too long, negative, beyond what a timedelta holds, and two that are no durations at all."""
    seconds = [{"seconds": each} for each in (0, 86_401, -5, 315_576_000_000, 2**63 - 1, -(2**63))]
    nanos = [{"nanos": each} for each in (999_999_999, 2**31 - 1, -1)]
    return [*seconds, *nanos, {"seconds": 86_400, "nanos": 1000}, {"seconds": 5, "nanos": -1}]


def instants() -> list[dict[str, int]]:
    """Before the year 1, after 9999, and two that are no timestamps at all."""
    return [{"seconds": each} for each in (-(2**60), 2**60)] + [{"nanos": each} for each in (-1, 10**9)]


def cases() -> list[tuple[str, dict[str, Any], str, str, str]]:
    """RPC, what is wrong of it, and what it has to answer: status, reason, field."""
    found: list[tuple[str, dict[str, Any], str, str, str]] = []

    def wrong(rpc: str, field: str, *values: Any, reason: str = "INVALID_ARGUMENT") -> None:
        found.extend((rpc, {field: value}, "INVALID_ARGUMENT", reason, field) for value in values)

    for rpc, right in RIGHT.items():
        if "account_id" in right:
            wrong(rpc, "account_id", *ODD_TEXTS)
            found.append((rpc, {"account_id": "acct_x"}, "NOT_FOUND", "ACCOUNT_NOT_FOUND", "account_id"))
        if "lease_id" in right:
            wrong(rpc, "lease_id", *ODD_TEXTS)
            found.append((rpc, {"lease_id": "another's"}, "NOT_FOUND", "LEASE_NOT_FOUND", "lease_id"))
    for rpc in ("Consume", "Acquire", "SetCap"):
        wrong(rpc, "meter", "", "nonsense", "a\x00", "\x1fmodels", "\x1emessages", LONG * 40, reason="UNKNOWN_METER")
    for rpc in ("Consume", "Acquire"):
        wrong(rpc, "request_id", *ODD_OPTIONAL)
        wrong(rpc, "key_id", *ODD_OPTIONAL)
    wrong("Consume", "amount", 0, -1, -(2**63), 2**62 + 1, 2**63 - 1)
    wrong("Acquire", "subject", *ODD_OPTIONAL)
    wrong("Acquire", "amount", -1, -(2**63), 2**62 + 1, 2**63 - 1)
    wrong("Acquire", "reserve", -1, -(2**63), 2**62 + 1, 2**63 - 1)
    for rpc in ("Acquire", "Renew"):
        wrong(rpc, "duration", *durations())
    wrong("Settle", "amount", -1, -(2**63), 2**63 - 1)
    wrong("Reverse", "request_id", *ODD_TEXTS)
    found.append(("Reverse", {"request_id": "never"}, "NOT_FOUND", "GRANT_NOT_FOUND", "request_id"))
    found.append(
        ("Consume", {"request_id": "granted", "amount": 2}, "ALREADY_EXISTS", "IDEMPOTENCY_KEY_REUSED", "request_id")
    )
    found.append(("Acquire", {"request_id": "granted"}, "ALREADY_EXISTS", "IDEMPOTENCY_KEY_REUSED", "request_id"))
    found.append(("Settle", {"lease_id": "held", "amount": 4}, "INVALID_ARGUMENT", "MORE_THAN_RESERVED", "amount"))
    wrong("GetUsage", "key_id", *ODD_OPTIONAL)
    wrong("ListLeases", "meter", *ODD_OPTIONAL)
    wrong("ListLeases", "page_size", -1, -(2**31))
    wrong(
        "ListLeases",
        "page_token",
        "nonsense",
        "1",
        "1.",
        ".a",
        "-1.a",
        "9" * 30 + ".a",
        "1.\x00",
        "²3.a",
        "9" * 18 + ".a",
    )
    wrong("SetCap", "limit", -1, -(2**63), 2**62 + 1, 2**63 - 1)
    odd_decimals = [
        "-1",
        "+1",
        "1e3",
        "NaN",
        "Infinity",
        ".5",
        "1.",
        "1,5",
        " 1",
        "1\n",
        "١",
        "1" * 16,
        "1." + "1" * 13,
    ]
    wrong("SetCap", "overage_amount", *odd_decimals)
    found.append(("SetCap", {"meter": "calls"}, "INVALID_ARGUMENT", "CAP_NOT_OFFERED", "meter"))
    wrong("AdjustAllowance", "allowance", *ODD_TEXTS)
    wrong("AdjustAllowance", "request_id", *ODD_OPTIONAL)
    for change in ("add", "remove"):
        wrong("AdjustAllowance", change, 0, -1, 2**62 + 1, 2**63 - 1)
    wrong("AdjustAllowance", "set", -1, 2**62 + 1, 2**63 - 1)
    found.append(("AdjustAllowance", {"add": None}, "INVALID_ARGUMENT", "INVALID_ARGUMENT", "change"))
    wrong("SetKillSwitch", "meter", "nonsense", reason="UNKNOWN_METER")
    wrong("SetKillSwitch", "meter", *ODD_OPTIONAL)
    wrong("SetKillSwitch", "reason", "", "a\x00", "a\nb", "x" * 301)
    wrong("RepublishEvents", "since", *instants())
    wrong("RepublishEvents", "page_token", "nonsense", "a\x00")
    return found


CASES = cases()


@dataclass
class Service:
    channel: grpc.Channel

    def ask(self, rpc: str, request: Message, timeout: float | None = 10) -> Any:
        stub, _ = STUBS[rpc]
        return getattr(stub(self.channel), rpc)(request, timeout=timeout)

    def fault(self, rpc: str, request: Message) -> grpc.RpcError:
        with pytest.raises(grpc.RpcError) as caught:
            self.ask(rpc, request)
        return caught.value

    def hold(self) -> str:
        """A lease with three units in reserve."""
        request = lease_pb2.AcquireRequest(account_id="acct_a", meter="messages", reserve=3)
        return str(self.ask("Acquire", request).decision.lease.id)


@pytest.fixture(scope="module")
def service(templates: Templates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One process for the whole file: nothing that is refused here may change anything."""

    async def fill(dsn: str) -> None:
        async with world.tables(dsn) as engine:
            await world.put(engine, guarded("acct_a", quota=None, slots=None))

    with contextlib.ExitStack() as stack:
        dsn = stack.enter_context(templates.copy("quota"))
        run_apart(fill(dsn))
        # Billing answers, so that it can be told who does not exist.
        billing = stack.enter_context(envoy_world.billing_server(envoy_world.Billing()))
        folder = tmp_path_factory.mktemp("service")
        quota = stack.enter_context(world.process(folder, dsn, billing=billing))
        found = Service(stack.enter_context(grpc.insecure_channel(quota.address)))
        grpc.channel_ready_future(found.channel).result(timeout=30)
        found.ask("Consume", quota_pb2.ConsumeRequest(**RIGHT["Consume"], request_id="granted"))
        yield found


def named(error: grpc.RpcError) -> tuple[str, str, str]:
    """Status, ErrorInfo's reason, and the field of the first violation. Fails when there is no ErrorInfo."""
    assert isinstance(error, grpc.Call)
    [details] = [value for key, value in error.trailing_metadata() or () if key == "grpc-status-details-bin"]
    status = Status.FromString(details if isinstance(details, bytes) else details.encode())
    assert (status.code, status.message) == (error.code().value[0], error.details())
    info, field = ErrorInfo(), ""
    for detail in status.details:
        detail.Unpack(info)
        if detail.Is(BadRequest.DESCRIPTOR):
            [violation] = BadRequest.FromString(detail.value).field_violations
            field = violation.field
            assert violation.description
    assert info.domain == "tollway"
    return error.code().name, info.reason, field


def build(rpc: str, changes: dict[str, Any]) -> Message:
    fields = {**RIGHT[rpc], **changes}
    if rpc == "SetCap" and "overage_amount" in changes:
        del fields["limit"]
    if rpc == "AdjustAllowance" and changes.keys() & {"set", "remove"}:
        del fields["add"]
    kind: type[Message] = STUBS[rpc][1]
    return kind(**{name: value for name, value in fields.items() if value is not None})


def label(case: Any) -> str:
    return f"{case[0]}-{'-'.join(f'{name}={value!r}'[:40] for name, value in case[1].items())}"


@pytest.mark.parametrize("case", CASES, ids=label)
def test_a_wrong_field_is_refused_by_its_name(
    service: Service, case: tuple[str, dict[str, Any], str, str, str]
) -> None:
    rpc, changes, code, reason, field = case
    if changes.get("lease_id") == "held":
        changes = {**changes, "lease_id": service.hold()}
    assert named(service.fault(rpc, build(rpc, changes))) == (code, reason, field)


@pytest.mark.parametrize("count", [0, 1001])
def test_a_batch_of_none_or_of_too_many_is_refused(service: Service, count: int) -> None:
    request = quota_pb2.ConsumeBatchRequest(requests=[quota_pb2.ConsumeRequest(**RIGHT["Consume"])] * count)
    assert named(service.fault("ConsumeBatch", request)) == ("INVALID_ARGUMENT", "INVALID_ARGUMENT", "requests")


def test_in_a_batch_each_wrong_item_says_so_in_its_place(service: Service) -> None:
    mine = [case for case in CASES if case[0] == "Consume"]
    requests = [build("Consume", changes) for _, changes, *_ in mine]
    for request in requests:
        assert isinstance(request, quota_pb2.ConsumeRequest)
    dry = quota_pb2.ConsumeRequest(**RIGHT["Consume"], dry_run=True)
    mixed = [each for request in requests for each in (dry, request)]
    results = service.ask("ConsumeBatch", quota_pb2.ConsumeBatchRequest(requests=mixed)).results  # type: ignore[arg-type]
    assert all(result.decision.allowed for result in results[::2])
    for result, (_, changes, code, reason, field) in zip(results[1::2], mine, strict=True):
        expected = (getattr(grpc.StatusCode, code).value[0], reason, field)
        assert (result.error.code, result.error.reason, result.error.field) == expected, changes
        assert result.error.message


@pytest.mark.parametrize("rpc", [*STUBS])
def test_a_message_of_5_mb_is_refused_and_the_next_one_is_not(service: Service, rpc: str) -> None:
    kind = STUBS[rpc][1]
    big = kind.FromString(b"\xfa\x7f" + _varint(5 * 2**20) + b"x" * (5 * 2**20))  # a field that nobody knows
    assert named(service.fault(rpc, big)) == ("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE", "")
    assert service.ask("GetUsage", quota_pb2.GetUsageRequest(account_id="acct_a")).tier == "free"


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


@pytest.mark.parametrize("rpc", [*STUBS])
def test_bytes_that_are_no_message_are_an_error_and_the_next_one_is_answered(service: Service, rpc: str) -> None:
    stub, kind = STUBS[rpc]
    name = next(name for name in vars(stub(service.channel)) if name == rpc)
    owner = kind.DESCRIPTOR.file.services_by_name
    [full_name] = [each.full_name for each in owner.values() if name in each.methods_by_name]
    call = service.channel.unary_unary(f"/{full_name}/{rpc}")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"\x0a\xff", timeout=10)
    assert named(caught.value) == ("INVALID_ARGUMENT", "MALFORMED_MESSAGE", "")
    assert service.ask("GetUsage", quota_pb2.GetUsageRequest(account_id="acct_a")).tier == "free"


@pytest.mark.parametrize("rpc", ["Consume", "GetUsage", "Acquire", "ListLeases", "SetCap", "GetKillSwitch"])
def test_a_caller_without_a_deadline_is_answered(service: Service, rpc: str) -> None:
    right = {**RIGHT.get(rpc, {})}
    if rpc == "Consume":
        right["dry_run"] = True
    if rpc == "Acquire":
        right["amount"] = 0
    if rpc == "SetCap":
        del right["limit"]  # removes what is not there
    service.ask(rpc, STUBS[rpc][1](**right), timeout=None)


def test_nothing_of_all_this_was_counted_or_set(service: Service) -> None:
    usage = service.ask("GetUsage", quota_pb2.GetUsageRequest(account_id="acct_a"))
    assert [(meter.meter, meter.used) for meter in usage.meters] == [("messages", 1), ("calls", 0)]
    assert [(each.name, each.held) for each in usage.allowances] == [("models", 0)]
    [cap] = [each for each in usage.meters[0].limits if each.name == "cap"]
    assert not cap.HasField("limit")
    switches = service.ask("GetKillSwitch", kill_switch_pb2.GetKillSwitchRequest()).kill_switches
    assert [each.enabled for each in switches] == [False]
