"""What is asked, by name: the same for each kind of caller."""

from __future__ import annotations

import itertools
import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from google.protobuf.message import Message

from tollway.quota.v1 import lease_pb2, quota_pb2

ACCOUNTS = 10_000
MANY = 1_000_000
BATCH = 100
REPLAYS = 1000

CONSUME = "/tollway.quota.v1.QuotaService/Consume"
CONSUME_BATCH = "/tollway.quota.v1.QuotaService/ConsumeBatch"
ACQUIRE = "/tollway.quota.v1.LeaseService/Acquire"
RELEASE = "/tollway.quota.v1.LeaseService/Release"


def meter_of(prefix: str) -> str:
    """The meter that accounts with such ids use."""
    return "messages" if prefix == "acct_" else "live_downloads"


@dataclass(frozen=True)
class Kind:
    """A call: its path, what it sends, and what comes back. `follow` makes of the answer the call that belongs to it,
    `follow_path` is where that goes. `good` tells a right answer from a wrong one.
    """

    path: str
    make: Callable[[], Message]
    answer: type[Any]
    good: Callable[[Any], bool]
    items: int = 1  # decisions, with those that follow
    granted: int = 0  # units that each call leaves in the ledger
    follow: Callable[[Any], Message] | None = None
    follow_path: str = RELEASE
    follow_answer: type[Any] = lease_pb2.ReleaseResponse


class Payloads:
    """Requests with ids that never repeat, in any process."""

    def __init__(self) -> None:
        self._ids = itertools.count()
        self._random = random.Random(1)
        self._prefix = uuid.uuid4().hex[:22]
        self.kinds = self._kinds()

    def _kinds(self) -> dict[str, Kind]:
        kinds = {"without_key": self._consume(partial(self._use, "acct_", ACCOUNTS, key=False))}
        for name, prefix, accounts in (
            ("simple", "acct_", ACCOUNTS),
            ("manashiki", "mana_", ACCOUNTS),
            ("full", "full_", ACCOUNTS),
            ("two", "two_", ACCOUNTS),
            ("many", "many_", MANY),
        ):
            kinds[f"{name}_spread"] = self._consume(partial(self._use, prefix, accounts))
            kinds[f"{name}_hot"] = self._consume(partial(self._use, prefix, 1))
            kinds[f"{name}_batch_spread"] = self._batch(prefix, accounts)
            kinds[f"{name}_batch_hot"] = self._batch(prefix, 1)
        kinds["refused_by_quota"] = self._refused(lambda: self._request("no_quota", "live_downloads"))
        kinds["refused_by_rate"] = self._refused(lambda: self._request("no_rate", "live_downloads"))
        kinds["refused_by_switch"] = self._refused(
            lambda: self._request(self._account("full_", ACCOUNTS), "suspended_downloads")
        )
        kinds["replay"] = Kind(
            CONSUME,
            lambda: replayed(self._random.randrange(REPLAYS)),
            quota_pb2.ConsumeResponse,
            lambda answer: answer.decision.replayed,
        )
        kinds["acquire_release"] = Kind(
            ACQUIRE,
            self._acquire,
            lease_pb2.AcquireResponse,
            lambda answer: answer.decision.HasField("lease"),
            items=2,
            granted=1,
            follow=_release,
        )
        return kinds

    def _consume(self, make: Callable[[], Message]) -> Kind:
        return Kind(CONSUME, make, quota_pb2.ConsumeResponse, lambda answer: answer.decision.allowed, granted=1)

    def _refused(self, make: Callable[[], Message]) -> Kind:
        return Kind(CONSUME, make, quota_pb2.ConsumeResponse, lambda answer: not answer.decision.allowed)

    def _batch(self, prefix: str, accounts: int) -> Kind:
        def make() -> Message:
            return quota_pb2.ConsumeBatchRequest(requests=[self._use(prefix, accounts) for _ in range(BATCH)])

        def good(answer: Any) -> bool:
            return all(result.decision.allowed for result in answer.results)

        return Kind(CONSUME_BATCH, make, quota_pb2.ConsumeBatchResponse, good, items=BATCH, granted=BATCH)

    def _account(self, prefix: str, accounts: int) -> str:
        return f"{prefix}{self._random.randrange(accounts):07d}"

    def _use(self, prefix: str, accounts: int, *, key: bool = True) -> quota_pb2.ConsumeRequest:
        return self._request(self._account(prefix, accounts), meter_of(prefix), key=key)

    def _request(self, account_id: str, meter: str, *, key: bool = True) -> quota_pb2.ConsumeRequest:
        return quota_pb2.ConsumeRequest(
            account_id=account_id, meter=meter, amount=1, key_id="key_1", request_id=self._id() if key else ""
        )

    def _acquire(self) -> lease_pb2.AcquireRequest:
        return lease_pb2.AcquireRequest(
            account_id=self._account("full_", ACCOUNTS),
            meter="live_downloads",
            amount=1,
            key_id="key_1",
            request_id=self._id(),
        )

    def _id(self) -> str:
        return f"{self._prefix}-{next(self._ids):09d}"


def first_use(prefix: str, number: int, *, dry_run: bool = False) -> quota_pb2.ConsumeRequest:
    """Of the n-th account whose id begins so."""
    return quota_pb2.ConsumeRequest(
        account_id=f"{prefix}{number:07d}", meter=meter_of(prefix), amount=1, key_id="key_1", dry_run=dry_run
    )


def replayed(number: int) -> quota_pb2.ConsumeRequest:
    """The n-th of the requests that are sent again and again."""
    return quota_pb2.ConsumeRequest(
        account_id=f"again_{number:07d}",
        meter="live_downloads",
        amount=1,
        key_id="key_1",
        request_id=f"replay-{number:025d}",
    )


def _release(answer: lease_pb2.AcquireResponse) -> lease_pb2.ReleaseRequest:
    lease = answer.decision.lease
    return lease_pb2.ReleaseRequest(account_id=lease.account_id, lease_id=lease.id)
