"""What a program needs to stand behind tollway: asking quota before the work, and following the events.

    async with Quota("127.0.0.1:7102", token="…") as quota:
        if await quota.consume("acct_1", "messages"): ...
        async with quota.lease("acct_1", "downloads") as lease: ...
    async for event in subscribe("nats://127.0.0.1:14222", TierChanged, durable="my-service"):
        ...

`tollway.client.asgi` and `tollway.client.grpc` gate a whole service. It owns no state: what is counted is in quota's
database, and the stream remembers where a durable subscriber is. It refuses to retry a use under another id, and to
hide that events come at least once: drop ids that you have seen, and use the message's `version` for order.
"""

from tollway.client.decision import Decision, Lease, LimitState, MeterUsage, Reversal, Usage
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
from tollway.client.lease import HeldLease, Refused
from tollway.client.quota import Quota, Tls, Use

__all__ = [
    "DeadlineExceeded",
    "Decision",
    "Event",
    "FailedPrecondition",
    "HeldLease",
    "InvalidArgument",
    "KeyReused",
    "Lease",
    "LimitState",
    "MeterUsage",
    "NotFound",
    "PermissionDenied",
    "Quota",
    "QuotaError",
    "Refused",
    "ResourceExhausted",
    "Reversal",
    "Tls",
    "Unauthenticated",
    "Unavailable",
    "Usage",
    "Use",
    "subscribe",
]
