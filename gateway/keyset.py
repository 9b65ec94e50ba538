"""Somebody's public keys, kept for a while and read again when it is needed, never oftener than is bearable."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, TypeVar

import structlog

from services.kit.errors import TollwayError

CACHE_S = 600.0  # billing's contract: the next key is published an hour ahead, ten minutes are safe
FLOOR_S = 10.0  # between two reads that unknown key ids cause
RETRY_S = 1.0  # between two reads while there are no keys at all
STALE_S = 3600.0  # while billing does not answer: no token that old keys signed lives longer

K = TypeVar("K")
log = structlog.get_logger(__name__)


class KeySet(Generic[K]):
    """Public keys by id, read again after `CACHE_S`, or when a token names a key that is not among them.

    `fetch` answers RFC 7517 JSON or raises a TollwayError; `read` makes keys of it.
    """

    floor_s = FLOOR_S
    stale_s = STALE_S

    def __init__(
        self,
        fetch: Callable[[], Awaitable[str]],
        read: Callable[[str], Mapping[str, K]],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._read = read
        self._now = now
        self._lock = asyncio.Lock()
        self._json = ""
        self._keys: Mapping[str, K] = {}
        self._read_at = self._tried_at = float("-inf")
        self._failure: TollwayError | None = None

    async def jwks(self, max_age_s: float) -> str:
        """The key set as JSON, not older than `max_age_s` unless its owner cannot be reached."""
        if self._now() - self._read_at >= max_age_s:
            await self._refresh(max_age_s)
        return self._json

    async def find(self, kid: str) -> K | None:
        if self._now() - self._read_at >= CACHE_S:
            await self._refresh(CACHE_S)
        if kid not in self._keys and self._now() - self._tried_at >= self.floor_s:
            await self._refresh(self.floor_s)
        return self._keys.get(kid)

    async def _refresh(self, max_age_s: float) -> None:
        async with self._lock:
            now = self._now()
            if now - self._read_at < max_age_s:
                return  # the one before us in the queue has read them
            usable = bool(self._json) and now - self._read_at < self.stale_s
            if usable and now - self._tried_at < self.floor_s:
                return
            if self._failure is not None and now - self._tried_at < RETRY_S:
                raise self._failure  # those who queued behind a failure do not each wait for one of their own
            try:
                text = await self._fetch()
                keys = self._read(text)
            except TollwayError as error:
                self._tried_at, self._failure = self._now(), error
                if not usable:
                    raise
                log.warning("jwks.stale")
                return
            self._read_at = self._tried_at = self._now()
            self._json, self._keys, self._failure = text, keys, None
