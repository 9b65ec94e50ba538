"""What a program needs to stand behind tollway: asking quota before the work, and following the events.

    async with Quota("127.0.0.1:7102", token="…") as quota:
        if await quota.consume("acct_1", "messages"): ...
    async for event in subscribe("nats://127.0.0.1:14222", TierChanged, durable="my-service"):
        ...

`tollway.client.asgi` and `tollway.client.grpc` gate a whole service. It owns no state: what is counted is in quota's
database, and the stream remembers where a durable subscriber is. It refuses to retry a use under another id, and to
hide that events come at least once: drop ids that you have seen, and use the message's `version` for order.
"""

from tollway.client.decision import Decision, LimitState, MeterUsage, Usage
from tollway.client.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    KeyReused,
    NotFound,
    PermissionDenied,
    QuotaError,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)
from tollway.client.events import Event, subscribe
from tollway.client.quota import Quota, Tls, Use

__all__ = [
    "DeadlineExceeded",
    "Decision",
    "Event",
    "FailedPrecondition",
    "InvalidArgument",
    "KeyReused",
    "LimitState",
    "MeterUsage",
    "NotFound",
    "PermissionDenied",
    "Quota",
    "QuotaError",
    "ResourceExhausted",
    "Tls",
    "Unauthenticated",
    "Unavailable",
    "Usage",
    "Use",
    "subscribe",
]
