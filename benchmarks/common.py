"""What the measurements share: a PostgreSQL of their own, processes, a load generator, a table.

The load generator speaks HTTP/2 itself with frames that are made ready in advance. A Python gRPC client costs as much
as the server it measures; this one costs a tenth, so that on two cores the server is what saturates.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import cast

import psutil

from local import ports
from local import postgres as local_postgres
from local.blocking import run_apart

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0x0, 0x1, 0x4, 0x6, 0x7, 0x8
_END_STREAM, _END_HEADERS, _ACK = 0x1, 0x4, 0x1
_WIDE = 2**30


@dataclass
class Result:
    """One run at a constant number of calls in flight."""

    calls: int
    seconds: float
    failures: int
    latencies: list[float] = field(repr=False)
    answered: int = 0  # with those before and after the measured time
    server_cpu_s: float = 0.0  # what the server's process used for all that were answered

    @property
    def rate(self) -> float:
        """Answered calls per second."""
        return self.calls / self.seconds

    def percentile_ms(self, percent: float) -> float:
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] * 1000 if ordered else 0.0


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """An HTTP/2 frame (RFC 9113, section 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _literal(name: bytes, value: bytes) -> bytes:
    """A header with incremental indexing (RFC 7541, section 6.2.1), no Huffman coding; lengths below 127."""
    return b"\x40" + bytes((len(name),)) + name + bytes((len(value),)) + value


class _Connection(asyncio.Protocol):
    """One connection with `width` calls in flight; each answer starts the next call until `stop_at`."""

    def __init__(self, path: str, payloads: Callable[[], bytes], width: int) -> None:
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
        stream, self._stream = self._stream, self._stream + 2
        headers = self._first if stream == 1 else self._next
        message = self._payloads()
        body = b"\x00" + len(message).to_bytes(4, "big") + message
        self._began[stream] = time.perf_counter()
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
        self.calls += 1
        if stream in self._good:
            self._good.discard(stream)
        else:  # trailers without a message: an error
            self.failures += 1
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
) -> Result:
    """Keeps `in_flight` calls of `path` under way on 127.0.0.1 and counts the answers after `warm_s`.

    Returns when every call is answered, so what the server counted can be compared with `calls`.
    """
    loop = asyncio.get_running_loop()
    connections = min(connections, in_flight)
    made: list[_Connection] = []
    for index in range(connections):
        protocol = _Connection(path, payloads, in_flight // connections + (index < in_flight % connections))
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


@contextlib.contextmanager
def postgres(*databases: str) -> Iterator[list[str]]:
    """A fresh PostgreSQL with local mode's settings (fsync on) for the length of a block; the databases' DSNs."""
    with tempfile.TemporaryDirectory(prefix="tollway-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # PostgreSQL may have to run as another user
        with local_postgres.running(folder, ports.reserve(), "bench") as admin:
            run_apart(local_postgres.create_databases(admin, databases))
            yield [local_postgres.service_dsn(admin, database) for database in databases]


@contextlib.contextmanager
def process(*module: str, **environment: str) -> Iterator[psutil.Process]:
    """`python -m module …` for the length of a block, with only these TOLLWAY settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TOLLWAY_")}
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(
            [sys.executable, "-m", *module], env=inherited | environment, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            yield psutil.Process(child.pid)
        finally:
            ended = child.poll()
            child.terminate()
            try:
                child.wait(timeout=15)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            if ended is not None:
                log.seek(0)
                said = log.read().decode(errors="replace")[-2000:]
                print(f"{' '.join(module)} ended with {ended}: {said}", file=sys.stderr)


async def listening(port: int, *, timeout_s: float = 30) -> None:
    """Returns when something accepts connections on the port."""
    async with asyncio.timeout(timeout_s):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)  # nothing to await: the process opens the port when it is ready
            else:
                writer.close()
                return


def table(title: str, rows: Iterable[tuple[str, ...]]) -> str:
    """Rows as aligned columns; the first row is the heading."""
    lines = list(rows)
    widths = [max(len(row[column]) for row in lines) for column in range(len(lines[0]))]
    shown = [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in lines
    ]
    return "\n".join((title, "-" * len(shown[0]), shown[0], "-" * len(shown[0]), *shown[1:]))
