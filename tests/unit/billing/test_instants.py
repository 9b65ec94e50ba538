"""Instants in requests to billing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from services.billing.grpc_operator import OperatorService
from services.billing.grpc_outbox import OutboxService
from services.billing.grpc_subscription import SubscriptionService
from services.kit.errors import InvalidArgument
from tollway.billing.v1 import operator_pb2, outbox_pb2, subscription_pb2

NOBODY: Any = None  # is not asked
NO_INSTANT = Timestamp(seconds=2**60)


@pytest.mark.parametrize(
    ("call", "request_", "field"),
    [
        (OutboxService(NOBODY).RepublishEvents, outbox_pb2.RepublishEventsRequest(since=NO_INSTANT), "since"),
        (OperatorService(NOBODY).SetOverride, operator_pb2.SetOverrideRequest(end_time=NO_INSTANT), "end_time"),
        (
            SubscriptionService(NOBODY).ChangePlan,
            subscription_pb2.ChangePlanRequest(proration_time=NO_INSTANT),
            "proration_time",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_an_instant_that_is_none_is_refused_by_its_name(
    call: Callable[[Any, Any], Awaitable[Any]], request_: Any, field: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await call(request_, NOBODY)
    assert refused.value.field == field
