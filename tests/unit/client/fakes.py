"""A quota service without a network: it answers as told, and remembers what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyProto
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status

from tollway.client import Quota
from tollway.client.retry import Pace
from tollway.quota.v1 import quota_pb2 as pb


def packed(message: Message) -> AnyProto:
    holder = AnyProto()
    holder.Pack(message)
    return holder


def rpc_error(code: grpc.StatusCode, message: str = "", *details: Message) -> grpc.aio.AioRpcError:
    """What a stub raises when the service ended the call with these details."""
    status = Status(code=code.value[0], message=message)
    status.details.extend(map(packed, details))
    trailing = grpc.aio.Metadata(("grpc-status-details-bin", status.SerializeToString())) if details else None
    return grpc.aio.AioRpcError(code, None, trailing, message)


@dataclass
class Time:
    """A clock that moves only when somebody sleeps or an attempt takes its time."""

    now: float = 1000.0
    slept: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def pace(self, jitter: float = 1.0) -> Pace:
        return Pace(clock=lambda: self.now, sleep=self.sleep, jitter=lambda: jitter)


# An event: silence until it is set, and then the answer that follows it.
Answer = Message | Exception | asyncio.Event | Callable[[Any, float], Message]


@dataclass
class Service:
    """Stands where the generated stub does. The last answer stays."""

    answers: list[Answer]
    requests: list[Any] = field(default_factory=list)
    timeouts: list[float] = field(default_factory=list)
    metadata: list[Any] = field(default_factory=list)

    async def Consume(self, request: Any, *, timeout: float, metadata: Any) -> Any:  # noqa: N802, ASYNC109
        self.requests.append(type(request).FromString(request.SerializeToString()))
        self.timeouts.append(timeout)
        self.metadata.append(metadata)
        answer = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        await asyncio.sleep(0)  # as over a network: whoever is cancelled meanwhile gets no answer
        if isinstance(answer, asyncio.Event):
            await answer.wait()
            answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer(request, timeout) if callable(answer) else answer

    ConsumeBatch = GetUsage = Reverse = Acquire = Renew = Settle = Release = ListLeases = SetCap = Consume


class Wired(Quota):
    """A client whose calls end in a `Service`."""

    def __init__(self, service: Service, time: Time | None = None, *, token: str = "", timeout_s: float = 5.0) -> None:
        super().__init__("127.0.0.1:1", token=token, timeout_s=timeout_s, pace=(time or Time()).pace())
        self._service = service

    def _connected(self) -> Any:
        return self._service


def allowed(**fields: Any) -> pb.ConsumeResponse:
    return pb.ConsumeResponse(decision=pb.Decision(allowed=True, tier="pro", version=3, **fields))


def refused(http_status: int = 402, **fields: Any) -> pb.ConsumeResponse:
    decision = pb.Decision(
        binding_limit="messages_per_month",
        refusal=pb.Refusal(
            reason="message_quota_exceeded",
            http_status=http_status,
            detail="The month's messages are used up.",
            billing_url="https://pay.example/billing",
            support_contact="mailto:help@example.com",
        ),
        limits=[
            pb.LimitState(name="messages_per_month", used=100, limit=100, remaining=0),
            pb.LimitState(name="messages_for_life", used=100),
        ],
        tier="free",
        version=1,
        **fields,
    )
    return pb.ConsumeResponse(decision=decision)
