"""Problem documents."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from gateway.problem_types import KNOWN
from gateway.problems import Problem, from_error, seconds
from gateway.times import rfc3339
from services.kit import errors
from services.quota.errors import BillingUnavailable, CounterFull, Expired, GrantReversed, QueueFull

ROOT = Path(__file__).parents[3]
PROTOS = ROOT / "protos" / "tollway"
# Reasons that no caller of REST is refused with: for the gateway itself or another caller of services, or of a refund
# that is only offered.
ELSEWHERE = {"RPC_TOKEN_REQUIRED", "MALFORMED_MESSAGE", "CREDENTIAL_MISSING", "MORE_THAN_RESERVED", "REFUNDED_ALREADY"}


def test_every_reason_that_the_contract_names_is_explained() -> None:
    text = " ".join(
        re.sub(r"\s*//\s*", " ", path.read_text()) for path in PROTOS.rglob("*.proto") if "events" not in path.name
    )
    named = set()
    for sentence in re.findall(r"reasons? [A-Z][A-Z_, a-z()`;]*", text):
        named |= set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", sentence))
    reasons = named - {status.name for status in grpc.StatusCode}
    assert {"UNKNOWN_TIER", "NO_CUSTOMER", "API_KEY_REVOKED", "SIGNATURE_INVALID", "UNKNOWN_METER"} <= reasons
    assert {reason.lower() for reason in reasons} - set(KNOWN) == set()


def test_every_reason_that_a_service_refuses_with_is_explained() -> None:
    source = " ".join(path.read_text() for path in (ROOT / "services").rglob("*.py"))
    reasons = set(re.findall(r'\breason ?= ?"([A-Z_]+)"', source))
    assert reasons > ELSEWHERE
    assert {reason.lower() for reason in reasons - ELSEWHERE} - set(KNOWN) == set()


@pytest.mark.parametrize(
    "error",
    [
        CounterFull("messages"),
        GrantReversed(),
        QueueFull(),
        BillingUnavailable(),
        Expired(),
        errors.ResourceExhausted("Too large.", reason="MESSAGE_TOO_LARGE"),
    ],
    ids=lambda error: error.error_reason,
)
def test_a_services_refusal_has_the_status_that_its_explanation_has(error: errors.TollwayError) -> None:
    problem = from_error(error)
    assert (problem.status, problem.title) == (KNOWN[problem.code].status, KNOWN[problem.code].title)


@pytest.mark.parametrize("code", KNOWN)
def test_a_known_problem_has_a_sentence_and_an_error_status(code: str) -> None:
    problem = Problem(code)
    assert re.fullmatch(r"[a-z0-9_]+", code)
    assert 400 <= problem.status < 600
    assert problem.detail.endswith((".", "…", ">"))


@pytest.mark.parametrize("kind", errors.TollwayError.__subclasses__())
def test_every_kind_of_error_has_a_status_of_its_own_sort(kind: type[errors.TollwayError]) -> None:
    problem = from_error(kind("A sentence.", reason="SOMETHING"))
    assert problem.status != 500
    assert problem.code == "something"
    assert problem.detail == "A sentence."


@given(st.text(), st.text(), st.dictionaries(st.sampled_from(["query", "path", "key"]), st.text()))
def test_an_internal_error_tells_nothing(message: str, reason: str, metadata: dict[str, str]) -> None:
    for error in (errors.TollwayError(message, reason=reason, **metadata), errors.Unauthenticated(message)):
        problem = from_error(error)
        assert problem.document("", "") == Problem("internal").document("", "")


def test_the_field_of_the_contract_becomes_the_callers_name_for_it() -> None:
    problem = from_error(errors.InvalidArgument("Too long.", field="request_id"))
    assert problem.document("", "")["field"] == "Idempotency-Key"
    assert problem.document("", "")["errors"] == [{"field": "Idempotency-Key", "detail": "Too long."}]


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=400)))
def test_waiting_retry_after_is_never_too_short_and_less_than_a_second_too_long(delay: timedelta) -> None:
    told = timedelta(seconds=int(seconds(delay)))
    assert told >= delay
    assert told - delay < timedelta(seconds=1) or told == timedelta(seconds=1)


@given(st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)))  # noqa: DTZ001 (Hypothesis wants them bare)
def test_an_instant_is_written_in_whole_seconds_and_never_early(moment: datetime) -> None:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    text = rfc3339(stamp)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", text)
    read = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert timedelta(0) <= read - moment.replace(tzinfo=UTC) < timedelta(seconds=1)
