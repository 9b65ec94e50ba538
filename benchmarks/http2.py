"""A load generator for gRPC that speaks HTTP/2 itself, with frames that are made ready in advance.

A Python gRPC client costs as much as the server it measures; this one costs a tenth, so that on two cores the server is
what saturates.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

from benchmarks.common import Result

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0x0, 0x1, 0x4, 0x6, 0x7, 0x8
_END_STREAM, _END_HEADERS, _ACK = 0x1, 0x4, 0x1
_WIDE = 2**30


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """An HTTP/2 frame (RFC 9113, section 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _literal(name: bytes, value: bytes) -> bytes:
    """A header with incremental indexing (RFC 7541, section 6.2.1), no Huffman coding; lengths below 127."""
    return b"\x40" + _short(name) + _short(value)


def _short(text: bytes) -> bytes:
    return bytes((len(text),)) + text


@dataclass(frozen=True)
class Follow:
    """A second call on `path` that each answer asks for; both together are counted as one call."""

    path: str
    make: Callable[[bytes], bytes]  # of the first answer's message


class _Connection(asyncio.Protocol):
    """One connection with `width` calls in flight; each answer starts the next call until `stop_at`."""

    def __init__(self, path: str, payloads: Callable[[], bytes], width: int, follow: Follow | None) -> None:
        fields = (
            (b":path", path.encode()),
            (b":authority", b"localhost"),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            (b"grpc-timeout", b"20S"),
        )
        # :method POST and :scheme http are entries 3 and 6 of the static table.
        self._first = b"\x83\x86" + b"".join(_literal(*pair) for pair in fields)
        # Afterwards the same headers are entries of the dynamic table, newest first from 62.
        self._next = b"\x83\x86" + bytes(0x80 | (62 + len(fields) - 1 - place) for place in range(len(fields)))
        # The path of what follows is written out each time: entry 4 of the static table names it (section 6.2.2).
        self._follow = follow
        if follow is not None:
            self._second = self._next[:2] + b"\x04" + _short(follow.path.encode()) + self._next[3:]
        self._answers: dict[int, bytes] = {}
        self._seconds: set[int] = set()
        self._payloads = payloads
        self._width = width
        self._buffer = b""
        self._stream = 1
        self._window = 65_535
        self._held: deque[bytes] = deque()
        self._began: dict[int, float] = {}
        self._good: set[int] = set()
        self.count_from = self.stop_at = 0.0
        self.latencies: list[float] = []
        self.failures = 0
        self.calls = 0  # answered at all, the uncounted ones too
        self.idle = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's does not inherit from asyncio's
        settings = (4).to_bytes(2, "big") + _WIDE.to_bytes(4, "big")  # SETTINGS_INITIAL_WINDOW_SIZE
        self._transport.write(
            _PREFACE + frame(_SETTINGS, 0, 0, settings) + frame(_WINDOW, 0, 0, (_WIDE - 65_535).to_bytes(4, "big"))
        )

    def close(self) -> None:
        self._transport.close()

    def start(self) -> None:
        for _ in range(self._width):
            self._call()

    def _call(self) -> None:
        self._send(self._first if self._stream == 1 else self._next, self._payloads(), time.perf_counter())

    def _send(self, headers: bytes, message: bytes, began: float) -> None:
        stream, self._stream = self._stream, self._stream + 2
        body = b"\x00" + len(message).to_bytes(4, "big") + message
        self._began[stream] = began
        self._transport.write(frame(_HEADERS, _END_HEADERS, stream, headers))
        self._held.append(frame(_DATA, _END_STREAM, stream, body))
        self._release()

    def _release(self) -> None:
        while self._held and len(self._held[0]) - 9 <= self._window:
            data = self._held.popleft()
            self._window -= len(data) - 9
            self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        at, end = 0, len(buffer)
        while end - at >= 9:
            length = int.from_bytes(buffer[at : at + 3], "big")
            if end - at < 9 + length:
                break
            kind, flags = buffer[at + 3], buffer[at + 4]
            if kind in (_HEADERS, _DATA):
                stream = int.from_bytes(buffer[at + 5 : at + 9], "big")
                if kind == _DATA:
                    self._good.add(stream)
                    if self._follow is not None:
                        self._answers[stream] = self._answers.get(stream, b"") + buffer[at + 9 : at + 9 + length]
                if flags & _END_STREAM:
                    self._answered(stream)
            elif kind == _WINDOW:
                if buffer[at + 5 : at + 9] == b"\0\0\0\0":
                    self._window += int.from_bytes(buffer[at + 9 : at + 13], "big")
                    self._release()
            elif kind == _PING and not flags & _ACK:
                self._transport.write(frame(_PING, _ACK, 0, buffer[at + 9 : at + 9 + length]))
            elif kind == _SETTINGS and not flags & _ACK:
                self._transport.write(frame(_SETTINGS, _ACK, 0, b""))
            elif kind == _GOAWAY and not self.idle.done():
                self.idle.set_exception(ConnectionError(repr(buffer[at + 17 : at + 9 + length])))
            at += 9 + length
        self._buffer = buffer[at:]

    def _answered(self, stream: int) -> None:
        now = time.perf_counter()
        began = self._began.pop(stream)
        good = stream in self._good
        self._good.discard(stream)
        if self._follow is not None and (answer := self._answers.pop(stream, b"")) and stream not in self._seconds:
            self._seconds.add(self._stream)
            self._send(self._second, self._follow.make(answer[5:]), began)
            return
        self._seconds.discard(stream)
        self.calls += 1
        self.failures += not good  # trailers without a message: an error
        if self.count_from <= now < self.stop_at:
            self.latencies.append(now - began)
        if now < self.stop_at:
            self._call()
        elif not self._began and not self.idle.done():
            self.idle.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.idle.done():
            self.idle.set_exception(error or ConnectionError("the server closed the connection"))


def _same(protocol: _Connection) -> _Connection:
    return protocol


async def load(
    port: int,
    path: str,
    payloads: Callable[[], bytes],
    *,
    in_flight: int,
    seconds: float,
    warm_s: float = 0.5,
    connections: int = 4,
    follow: Follow | None = None,
) -> Result:
    """Keeps `in_flight` calls of `path` under way on 127.0.0.1 and counts the answers after `warm_s`.

    Returns when every call is answered, so what the server counted can be compared with `calls`.
    """
    loop = asyncio.get_running_loop()
    connections = min(connections, in_flight)
    made: list[_Connection] = []
    for index in range(connections):
        protocol = _Connection(path, payloads, in_flight // connections + (index < in_flight % connections), follow)
        await loop.create_connection(partial(_same, protocol), "127.0.0.1", port)
        made.append(protocol)
    began = time.perf_counter()
    for protocol in made:
        protocol.count_from, protocol.stop_at = began + warm_s, began + warm_s + seconds
        protocol.start()
    await asyncio.gather(*(protocol.idle for protocol in made))
    latencies = [latency for protocol in made for latency in protocol.latencies]
    result = Result(
        len(latencies),
        seconds,
        sum(protocol.failures for protocol in made),
        latencies,
        answered=sum(protocol.calls for protocol in made),
    )
    for protocol in made:
        protocol.close()
    return result
