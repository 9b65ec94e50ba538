"""Events as CloudEvents 1.0 in binary mode: attributes in NATS headers, protobuf data."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib import import_module
from typing import Any, Generic, Literal, TypeVar, overload

from google.protobuf.any_pb2 import Any as AnyProto
from google.protobuf.message import DecodeError, Message
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import ConnectionClosedError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError, ServiceUnavailableError

STREAM = "TOLLWAY"
ACK_WAIT_S = 30.0
# Also how soon a pull is made anew after the server was away; an idle subscriber asks this often.
PULL_S = 2.0
_SOURCES = ("tollway.billing.v1.events_pb2", "tollway.quota.v1.events_pb2")
_TOKEN = re.compile(r"[^\s.*>]+")

M = TypeVar("M", bound=Message)


@dataclass(frozen=True)
class Event(Generic[M]):
    """One event. `id` is the same at every delivery: a subscriber that must act once remembers it."""

    id: str
    type: str  # the message's full name: tollway.billing.v1.TierChanged
    account_id: str
    time: datetime  # UTC
    message: M
    sequence: int  # its place in the stream
    redelivered: bool  # True: an earlier delivery was not acknowledged, so you may have acted on it
    _raw: Msg = field(repr=False, compare=False)

    async def ack(self) -> None:
        """Only needed before leaving the loop early: going on to the next event acknowledges this one."""
        if self._raw.reply and not self._raw.is_acked:
            await self._raw.ack()


@overload
def subscribe(
    nats_url: str,
    *,
    durable: str | None = None,
    account: str = "*",
    start: Literal["beginning", "now"] = "beginning",
    wait_s: float | None = None,
) -> AsyncGenerator[Event[Message], None]: ...


@overload
def subscribe(
    nats_url: str,
    *types: type[M],
    durable: str | None = None,
    account: str = "*",
    start: Literal["beginning", "now"] = "beginning",
    wait_s: float | None = None,
) -> AsyncGenerator[Event[M], None]: ...


async def subscribe(
    nats_url: str,
    *types: type[Message],
    durable: str | None = None,
    account: str = "*",
    start: Literal["beginning", "now"] = "beginning",
    wait_s: float | None = None,
) -> AsyncGenerator[Event[Any], None]:
    """Yields events of these message classes (none: of every type), until the loop is left.

    With `durable`, the stream remembers this name's place: an event counts as done when the loop asks for the next
    one, and comes again, `redelivered`, if the process dies or the loop's body raises before that, or takes more than
    30 seconds. Several processes under one name share the work. Without it, the subscriber sees each event once while
    it runs. `start` is where a new name begins; a known one goes on where it was.

    `wait_s` is how long to wait for the server at first (ConnectionError after it; None: for ever). Later absences of
    the server are waited out. A type this release does not know comes as `google.protobuf.Any`.
    Raises ValueError for an account or durable name that cannot be one.
    """
    for name in (account, durable):
        if name is not None and name != "*" and not _TOKEN.fullmatch(name):
            raise ValueError(f"not a name: {name!r}")
    subjects = [_subject(each, account) for each in types] or [f"tollway.*.*.{account}"]
    place = _Place(subjects, durable, start)
    client = await _connect(nats_url, wait_s)
    try:
        jetstream = client.jetstream(timeout=PULL_S)
        while True:
            try:
                async with contextlib.aclosing(_pull(jetstream, place)) as pulled:
                    async for raw in pulled:
                        event = _decode(raw)
                        yield event
                        await event.ack()
            except (NotFoundError, ServiceUnavailableError, TimeoutError):
                # No stream yet (no service has run), or the server lost it: the services make it again.
                await asyncio.sleep(0.5)  # pause between attempts: there is nothing to await
    finally:
        with contextlib.suppress(ConnectionClosedError, TimeoutError):
            await client.close()


@dataclass
class _Place:
    """Where a subscriber is, so that one without a durable name can go on after the server forgot it."""

    subjects: list[str]
    durable: str | None
    start: str
    last_sequence: int = 0

    def config(self) -> ConsumerConfig:
        policy = DeliverPolicy.ALL if self.start == "beginning" else DeliverPolicy.NEW
        if self.durable is not None:
            return ConsumerConfig(
                durable_name=self.durable,
                deliver_policy=policy,
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=ACK_WAIT_S,
                filter_subjects=self.subjects,
            )
        if self.last_sequence:
            policy = DeliverPolicy.BY_START_SEQUENCE
        return ConsumerConfig(
            deliver_policy=policy,
            opt_start_seq=self.last_sequence + 1 if self.last_sequence else None,
            ack_policy=AckPolicy.NONE,
            inactive_threshold=60.0,
            mem_storage=True,
            filter_subjects=self.subjects,
        )


async def _pull(jetstream: JetStreamContext, place: _Place) -> AsyncGenerator[Msg, None]:
    config = place.config()
    if place.durable is not None:
        # Where a known name starts cannot be changed; what else it asks for can.
        with contextlib.suppress(NotFoundError):
            known = (await jetstream.consumer_info(STREAM, place.durable)).config
            config.deliver_policy, config.opt_start_seq = known.deliver_policy, known.opt_start_seq
            config.opt_start_time = known.opt_start_time
    info = await jetstream.add_consumer(STREAM, config)
    name = info.name or place.durable
    subscription = await jetstream.pull_subscribe_bind(name, stream=STREAM)
    try:
        while True:
            try:
                # With acknowledgement one at a time: what waited here would come again before its turn.
                messages = await subscription.fetch(1 if place.durable else 100, timeout=PULL_S)
            except TimeoutError:
                await jetstream.consumer_info(STREAM, str(name))  # raises when it is gone with the server's storage
                continue
            for message in messages:
                yield message
                place.last_sequence = message.metadata.sequence.stream
    finally:
        with contextlib.suppress(Exception):
            await subscription.unsubscribe()


async def _connect(nats_url: str, wait_s: float | None) -> Client:
    client = Client()
    try:
        async with asyncio.timeout(wait_s):
            await client.connect(
                nats_url, max_reconnect_attempts=-1, connect_timeout=2, error_cb=_quiet, name="tollway.client"
            )
    except TimeoutError as error:
        await client.close()
        raise ConnectionError("no NATS server answers there") from error
    return client


async def _quiet(_: Exception) -> None:
    """The library would log each failed attempt to reconnect."""


def _subject(message: type[Message], account: str) -> str:
    _, service, _, name = message.DESCRIPTOR.full_name.split(".")
    return f"tollway.{service}.{name}.{account}"


@cache
def message_types() -> dict[str, type[Message]]:
    """Every event that this release knows, by its CloudEvents type. What is nested in them is listed too."""
    found: dict[str, type[Message]] = {}
    for source in _SOURCES:
        with contextlib.suppress(ModuleNotFoundError):
            module = import_module(source)
            for value in vars(module).values():
                if isinstance(value, type) and issubclass(value, Message):
                    found[value.DESCRIPTOR.full_name] = value
    return found


@cache
def announced() -> tuple[type[Message], ...]:
    """The events themselves: top-level messages that no other message of their file contains."""
    types = message_types()
    inner = {
        field.message_type.full_name
        for cls in types.values()
        for field in cls.DESCRIPTOR.fields
        if field.message_type is not None
    }
    return tuple(cls for name, cls in sorted(types.items()) if name not in inner)


def _decode(raw: Msg) -> Event[Message]:
    headers = raw.headers or {}
    kind = headers.get("ce-type", "")
    cls = message_types().get(kind)
    message: Message
    try:
        message = cls.FromString(raw.data) if cls else AnyProto(type_url=kind, value=raw.data)
    except DecodeError:
        message = AnyProto(type_url=kind, value=raw.data)
    metadata = raw.metadata
    return Event(
        id=headers.get("ce-id", ""),
        type=kind,
        account_id=headers.get("ce-subject", raw.subject.rsplit(".", 1)[-1]),
        time=_time(headers.get("ce-time")) or metadata.timestamp,
        message=message,
        sequence=metadata.sequence.stream,
        redelivered=metadata.num_delivered > 1,
        _raw=raw,
    )


def _time(text: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(text).astimezone(UTC) if text else None
    except ValueError:
        return None
