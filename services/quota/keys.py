"""API keys: whose is it? From memory, else from our table, else from billing, which issued it.

KeyIssued fills the table. What it has not told yet is asked of billing once; that billing does not know a key is
believed for a moment, like everything that memory holds. KeyRevoked sets a key's end in the table, and every process
hears it by itself too, because one process's consumer takes the event for all.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import TypeVar

import structlog

from services.kit import telemetry
from services.kit.base62 import CHECK_DIGITS, checksum
from services.kit.clock import Clock
from services.kit.errors import TollwayError
from services.kit.inbox import Received
from services.quota.errors import ApiKeyRefused, BillingUnavailable, QueueFull, StoreUnavailable
from services.quota.ports import Authority, KeyOwner, KeyTable
from services.quota.storage import QuotaUnitOfWork
from tollway.billing.v1 import events_pb2

FRESH_S = 5.0  # how long memory is believed without looking: the longest that an end which nobody told stays unknown
MOST = 1000  # hashes in one read
REREAD = 250  # hashes in one read that nobody waits for: a few milliseconds of the event loop
IN_USE_S = 30.0  # a key that was not asked about for so long is not read ahead any more
MOST_IN_USE = 20_000
MOST_KEPT = 100_000
MOST_WAITING = 10_000
READ_S = 1.0  # a table that takes longer is as good as away
PATIENCE_S = 2.0  # for a key that billing has to be asked about
ASKING = 16  # questions to billing at once

_SHAPE = re.compile(r"[A-Za-z0-9_]{16,128}")  # the longest prefix, the random part and the checksum fit

_T = TypeVar("_T")
log = structlog.get_logger(__name__)


async def learn(event: Received, uow: QuotaUnitOfWork) -> None:
    """Acts on KeyIssued and KeyRevoked, in whatever order they come."""
    told = event.message
    assert isinstance(told, events_pb2.KeyIssued | events_pb2.KeyRevoked)  # noqa: S101 - the handler's only kinds
    end = _end(told) if isinstance(told, events_pb2.KeyRevoked) else None
    async with uow:
        if await uow.inbox.accept(event):
            await uow.keys.add({told.key_hash: KeyOwner(told.account_id, told.key_id, told.kind, end)})
            await uow.commit()


def _end(revoked: events_pb2.KeyRevoked) -> datetime:
    return revoked.revoke_time.ToDatetime(UTC)


class StoredKeys:
    """ports.KeyTable, a transaction each."""

    def __init__(self, new_uow: Callable[[], QuotaUnitOfWork]) -> None:
        self._new_uow = new_uow

    async def find(self, hashes: Sequence[bytes]) -> Mapping[bytes, KeyOwner]:
        async with self._new_uow() as uow:
            return await uow.keys.find(hashes)

    async def add(self, owners: Mapping[bytes, KeyOwner]) -> None:
        async with self._new_uow() as uow:
            await uow.keys.add(owners)
            await uow.commit()


class KeyRing:
    """ports.Keys. `run` reads what `owner` waits for; while a read is under way, further keys gather for the next.
    `keep_fresh` reads the keys in use again before anybody has to wait for that.

    Keys are held by their hash; the key itself only until it is known whose it is.
    """

    def __init__(self, table: KeyTable, authority: Authority, clock: Clock, *, fresh_s: float = FRESH_S) -> None:
        self._table = table
        self._authority = authority
        self._clock = clock  # business time: a rotated key's end moves with it
        self._fresh_s = fresh_s
        self._known: dict[bytes, tuple[KeyOwner, float]] = {}
        self._refused: dict[bytes, tuple[ApiKeyRefused, float]] = {}
        self._ends: dict[bytes, datetime] = {}  # heard here; the table may learn of it later
        self._waiting: dict[bytes, asyncio.Future[KeyOwner]] = {}
        self._unread: dict[bytes, str] = {}
        self._asked: set[bytes] = set()
        self._asked_before: set[bytes] = set()
        self._asking = asyncio.Semaphore(ASKING)
        self._questions: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()

    async def owner(self, api_key: str) -> KeyOwner:
        """See ports.Keys. A malformed key is refused without a look at the table."""
        if not _SHAPE.fullmatch(api_key) or checksum(api_key[:-CHECK_DIGITS]) != api_key[-CHECK_DIGITS:]:
            raise ApiKeyRefused.malformed()
        key_hash = hashlib.sha256(api_key.encode()).digest()
        now = asyncio.get_running_loop().time()
        if len(self._asked) < MOST_IN_USE:
            self._asked.add(key_hash)
        known = self._known.get(key_hash)
        if known is not None and known[1] > now:
            return self._unended(key_hash, known[0])
        refused = self._refused.get(key_hash)
        if refused is not None and refused[1] > now:
            raise ApiKeyRefused(refused[0].message, reason=refused[0].error_reason)
        try:
            # Shielded: one caller's deadline must not fail the others who wait for the same key.
            owner = await asyncio.wait_for(asyncio.shield(self._find(key_hash, api_key)), PATIENCE_S)
        except StoreUnavailable:
            if known is None:
                raise
            # A key changes far more seldom than a database is away; whether the use passes is decided apart.
            telemetry.count("tollway_quota_keys_from_memory_total")
            owner = known[0]
        except TimeoutError:
            raise BillingUnavailable from None
        return self._unended(key_hash, owner)

    def hear(self, revoked: events_pb2.KeyRevoked) -> None:
        """A key has an end: known here from now on, whatever memory and table hold."""
        end, heard = _end(revoked), self._ends.pop(revoked.key_hash, None)
        self._ends[revoked.key_hash] = min(end, heard) if heard is not None else end
        if len(self._ends) > MOST_KEPT:
            del self._ends[next(iter(self._ends))]

    def _unended(self, key_hash: bytes, owner: KeyOwner) -> KeyOwner:
        """Raises ApiKeyRefused from the key's end on."""
        now = self._clock.now()
        if any(end is not None and end <= now for end in (owner.end_time, self._ends.get(key_hash))):
            raise ApiKeyRefused.revoked()
        return owner

    def _find(self, key_hash: bytes, api_key: str) -> asyncio.Future[KeyOwner]:
        future = self._waiting.get(key_hash)
        if future is None:
            if len(self._waiting) >= MOST_WAITING:
                raise QueueFull
            future = self._waiting[key_hash] = asyncio.get_running_loop().create_future()
            # Those who asked may have left by the time it fails.
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._unread[key_hash] = api_key
            self._wake.set()
        return future

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                if not self._unread:
                    self._wake.clear()
                    await self._wake.wait()
                batch = dict(islice(self._unread.items(), MOST))
                for key_hash in batch:
                    del self._unread[key_hash]
                await self._read(batch)
        finally:
            for question in self._questions:
                question.cancel()

    async def keep_fresh(self) -> None:
        """Until cancelled. A key that nobody reads ahead costs its next caller a wait for the table."""
        loop = asyncio.get_running_loop()
        turned = loop.time()
        while True:
            await asyncio.sleep(self._fresh_s / 2)  # a period, not a wait for something
            in_use = [each for each in self._asked | self._asked_before if each in self._known]
            for start in range(0, len(in_use), REREAD):
                chunk = in_use[start : start + REREAD]
                found = await self._look(chunk)
                if found is None:
                    break
                for key_hash in chunk:
                    if key_hash in found:
                        _remember(self._known, key_hash, found[key_hash], self._until())
            if loop.time() - turned > IN_USE_S / 2:
                self._asked_before, self._asked, turned = self._asked, set(), loop.time()

    async def _look(self, hashes: Sequence[bytes]) -> Mapping[bytes, KeyOwner] | None:
        """Those that the table has. None: it does not answer."""
        reading = asyncio.ensure_future(self._table.find(hashes))
        # Not a timeout around it: giving the connection back may take as long as the database does.
        await asyncio.wait({reading}, timeout=READ_S)
        try:
            return reading.result()
        except Exception as error:  # InvalidStateError: it has not answered
            log.warning("keys.unread", keys=len(hashes), error=type(error).__name__)
            reading.cancel()
            reading.add_done_callback(lambda done: done.cancelled() or done.exception())
            return None

    async def _read(self, batch: Mapping[bytes, str]) -> None:
        found = await self._look(list(batch))
        if found is None:
            for key_hash in batch:
                self._fail(key_hash, StoreUnavailable())
            return
        for key_hash, api_key in batch.items():
            if key_hash in found:
                self._keep(key_hash, found[key_hash])
            else:
                question = asyncio.create_task(self._ask(key_hash, api_key))
                self._questions.add(question)
                question.add_done_callback(self._questions.discard)

    async def _ask(self, key_hash: bytes, api_key: str) -> None:
        try:
            async with self._asking:
                owner = await self._authority.authenticate(api_key)
        except ApiKeyRefused as error:
            self._known.pop(key_hash, None)
            _remember(self._refused, key_hash, error, self._until())
            self._fail(key_hash, error)
        except Exception as error:
            log.warning("keys.unasked", error=type(error).__name__)
            self._fail(key_hash, BillingUnavailable())
        else:
            try:
                await self._table.add({key_hash: owner})
            except Exception as error:  # then it is asked again
                log.warning("keys.unstored", error=type(error).__name__)
            self._keep(key_hash, owner)

    def _keep(self, key_hash: bytes, owner: KeyOwner) -> None:
        _remember(self._known, key_hash, owner, self._until())
        future = self._waiting.pop(key_hash)
        if not future.done():
            future.set_result(owner)

    def _fail(self, key_hash: bytes, error: TollwayError) -> None:
        future = self._waiting.pop(key_hash)
        if not future.done():
            future.set_exception(error)

    def _until(self) -> float:
        return asyncio.get_running_loop().time() + self._fresh_s


def _remember(memory: dict[bytes, tuple[_T, float]], key_hash: bytes, what: _T, until: float) -> None:
    """Newest last; the oldest goes when there is too much."""
    memory.pop(key_hash, None)
    memory[key_hash] = (what, until)
    if len(memory) > MOST_KEPT:
        del memory[next(iter(memory))]
