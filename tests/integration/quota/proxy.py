"""A TCP proxy before PostgreSQL that loses the answer to what commits, or is slow."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from enum import Enum

from sqlalchemy.engine import make_url

COMMIT = b"COMMIT AND CHAIN"  # how the lane commits what it decided under locks
READY = b"Z\0\0\0\5"  # ReadyForQuery: what was asked has been carried out


class Fault(Enum):
    NONE = "everything passes"
    CUT_AFTER = "PostgreSQL commits, its answer is thrown away and the connection cut"
    CUT_BEFORE = "the COMMIT never reaches PostgreSQL and the connection is cut"
    SILENCE = "PostgreSQL commits, nothing comes back, and the connection stays open"


@dataclass
class Proxy:
    """Strikes once, at the first statement with the bytes `at` after `fault` is set. `delay_s` holds back whatever is
    asked, for as long as it is so.
    """

    target: tuple[str, int]
    at: bytes = COMMIT
    fault: Fault = Fault.NONE
    struck: int = 0
    delay_s: float = 0.0
    _serving: set[asyncio.Task[None]] = field(default_factory=set)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_connection(*self.target)
        carried_out, muted = asyncio.Event(), asyncio.Event()
        back = asyncio.create_task(_pass_back(server, writer, muted, carried_out))
        try:
            while data := await reader.read(65536):
                fault, self.fault = (self.fault, Fault.NONE) if self.at in data else (Fault.NONE, self.fault)
                if fault is not Fault.NONE:
                    self.struck += 1
                    muted.set()
                    if fault is Fault.CUT_BEFORE:
                        return
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)  # what the test is about
                to_server.write(data)
                if fault is Fault.CUT_AFTER:
                    await asyncio.wait_for(carried_out.wait(), 10)
                    return
        except ConnectionError:
            pass
        finally:
            back.cancel()
            await asyncio.gather(back, return_exceptions=True)
            writer.close()
            to_server.close()

    async def close(self) -> None:
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)


async def _pass_back(
    server: asyncio.StreamReader, writer: asyncio.StreamWriter, muted: asyncio.Event, carried_out: asyncio.Event
) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await server.read(65536):
            if not muted.is_set():
                writer.write(data)
            elif data[-6:-1] == READY:
                carried_out.set()


@contextlib.asynccontextmanager
async def before(dsn: str) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy before the server of `dsn`, and the DSN that goes through it."""
    url = make_url(dsn)
    proxy = Proxy((url.host or "127.0.0.1", url.port or 5432))
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield proxy, url.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)
    finally:
        server.close()
        await proxy.close()
