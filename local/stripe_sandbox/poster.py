"""POST over kept connections, and nothing else of HTTP: general clients cost several times as much per request.

Takes what any HTTP/1.1 server answers. Only the status and the body's beginning are of interest, so a connection whose
answer has no stated length is closed instead of read to its end.
"""

from __future__ import annotations

import asyncio
import contextlib
from urllib.parse import urlsplit

_SHOWN = 200
_MOST_READ = 1 << 20

_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_Place = tuple[str, str, int]


class Poster:
    def __init__(self, timeout: float) -> None:
        """`timeout` is for one whole request, in seconds."""
        self._timeout = timeout
        self._idle: dict[_Place, list[_Connection]] = {}

    def close(self) -> None:
        for connections in self._idle.values():
            for _, writer in connections:
                writer.close()
        self._idle.clear()

    async def post(self, url: str, headers: dict[str, str], body: bytes) -> tuple[int, str]:
        """The answer's status and the first characters of its body. Raises OSError, EOFError or ValueError."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or parts.hostname is None or " " in url:
            raise ValueError("not an http address")
        secure = parts.scheme == "https"
        place = (parts.scheme, parts.hostname, parts.port or (443 if secure else 80))
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        lines = [f"POST {target} HTTP/1.1", f"Host: {parts.netloc.rpartition('@')[2]}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        request = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body
        async with asyncio.timeout(self._timeout):
            for connection in self._kept(place):
                # A kept connection that the server closed meanwhile says so before it answers anything.
                with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                    return await self._exchange(place, connection, request)
            fresh = await asyncio.open_connection(place[1], place[2], ssl=secure or None)
            return await self._exchange(place, fresh, request)

    def _kept(self, place: _Place) -> list[_Connection]:
        """At most one connection that was used before and is still open."""
        idle = self._idle.get(place, [])
        while idle:
            reader, writer = idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                return [(reader, writer)]
            writer.close()
        return []

    async def _exchange(self, place: _Place, connection: _Connection, request: bytes) -> tuple[int, str]:
        reader, writer = connection
        whole = False
        try:
            writer.write(request)
            status, length, keep = await _head(reader)
            text = await reader.readexactly(length) if length is not None else await reader.read(_SHOWN)
            whole = keep
        finally:
            if whole:
                self._idle.setdefault(place, []).append(connection)
            else:
                writer.close()
        return status, text[:_SHOWN].decode("utf-8", "replace")


async def _head(reader: asyncio.StreamReader) -> tuple[int, int | None, bool]:
    """Status, length of the body if stated, and whether the connection can be used again."""
    status = 100
    while status < 200:  # interim answers say that another follows
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        version, _, rest = head[0].partition(" ")
        if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
            raise ValueError("not an HTTP answer")
        status = int(rest[:3])
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
    stated = headers.get("content-length", "0" if status in (204, 304) else "")
    length = int(stated) if stated.isdigit() and int(stated) <= _MOST_READ else None
    keep = length is not None and version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
    return status, length, keep
