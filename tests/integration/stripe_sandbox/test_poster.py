"""The deliverer's small HTTP client, against servers of every habit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from local.stripe_sandbox.poster import Poster


class Server:
    """Answers each request with the next bytes, and remembers what came on which connection."""

    def __init__(self, answers: list[bytes], close_after: bool = False) -> None:
        self.answers = answers
        self.close_after = close_after
        self.connections = 0
        self.requests: list[bytes] = []
        self.url = ""
        self.closed = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while self.answers:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                writer.write(self.answers.pop(0))
                await writer.drain()
                if self.close_after:
                    break
        except asyncio.IncompleteReadError:
            pass  # the client has gone
        finally:
            writer.close()
            self.closed.set()


@asynccontextmanager
async def _serving(server: Server) -> AsyncIterator[tuple[Server, Poster]]:
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/hook?a=b"
    poster = Poster(2.0)
    yield server, poster
    poster.close()
    listening.close()
    await listening.wait_closed()


_PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def test_requests_share_a_connection_and_arrive_whole() -> None:
    async with _serving(Server([_PLAIN] * 3)) as (server, poster):
        for i in range(3):
            assert await poster.post(server.url, {"X-Id": str(i)}, b"body%d" % i) == (200, "ok")
        assert server.connections == 1
        assert server.requests[2].startswith(b"POST /hook?a=b HTTP/1.1\r\nHost: 127.0.0.1:")
        assert server.requests[2].endswith(b"X-Id: 2\r\n\r\nbody2")


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + _PLAIN, 200),
        (b"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n", 500),
        (b"HTTP/1.0 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", 302),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", 200),
        (b"HTTP/1.1 200\r\nContent-Length: 99999999999\r\n\r\n", 200),
    ],
)
async def test_any_answer_gives_its_status_and_the_next_request_works(answer: bytes, status: int) -> None:
    async with _serving(Server([answer], close_after=True)) as (server, poster):
        assert (await poster.post(server.url, {}, b"1"))[0] == status
        server.answers = [_PLAIN]
        assert await poster.post(server.url, {}, b"2") == (200, "ok")


async def test_a_kept_connection_that_the_server_closed_is_replaced() -> None:
    async with _serving(Server([_PLAIN], close_after=True)) as (server, poster):
        await poster.post(server.url, {}, b"1")
        await server.closed.wait()
        server.answers = [_PLAIN]
        assert await poster.post(server.url, {}, b"2") == (200, "ok")
        assert server.connections == 2


@pytest.mark.parametrize(
    ("answer", "error"),
    [(b"SSH-2.0-OpenSSH\r\n\r\n", ValueError), (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhalf", EOFError)],
)
async def test_what_is_no_answer_is_an_error(answer: bytes, error: type[Exception]) -> None:
    async with _serving(Server([answer], close_after=True)) as (server, poster):
        with pytest.raises(error):
            await poster.post(server.url, {}, b"1")


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "http://", "http://127.0.0.1/a b", "nonsense"])
async def test_addresses_that_cannot_be_posted_to_are_errors(url: str) -> None:
    with pytest.raises(ValueError, match="address"):
        await Poster(1.0).post(url, {}, b"")


async def test_silence_ends_in_a_timeout() -> None:
    release = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.close()

    listening = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    with pytest.raises(TimeoutError):
        await Poster(0.2).post(f"http://127.0.0.1:{port}/", {}, b"")
    release.set()
    listening.close()
    await listening.wait_closed()
