"""HTTP/1.1 as uvicorn speaks it, except that bytes which are no HTTP, or do not come, get a problem document too."""

from __future__ import annotations

import asyncio
import json

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from gateway.problems import MEDIA_TYPE, Problem

HEAD_S = 20.0  # a head that trickles holds a connection, not for ever; bodies have `gateway.body.READ_S`


def _answer(code: str, public_url: str) -> tuple[h11.Response, bytes]:
    problem = Problem(code)
    body = json.dumps(problem.document(public_url, "/"), separators=(",", ":")).encode()
    headers = [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"connection", b"close"),
    ]
    return h11.Response(status_code=problem.status, headers=headers, reason=problem.title.encode()), body


def protocol(public_url: str) -> type[H11Protocol]:
    """The protocol class for `uvicorn.Config(http=…)`."""
    malformed = _answer("malformed_http", public_url)
    too_slow = _answer("head_timeout", public_url)

    class Protocol(H11Protocol):
        _head: asyncio.TimerHandle | None = None  # runs while a head is under way

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._head = self.loop.call_later(HEAD_S, self._head_is_late)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is h11.IDLE:
                self._head = self._head or self.loop.call_later(HEAD_S, self._head_is_late)
            elif self._head is not None:
                self._head.cancel()
                self._head = None

        def connection_lost(self, exc: Exception | None) -> None:
            if self._head is not None:
                self._head.cancel()
                self._head = None
            super().connection_lost(exc)

        def _head_is_late(self) -> None:
            self._head = None
            begun = bool(self.conn.trailing_data[0])
            self._say(too_slow) if begun else self.transport.close()

        def send_400_response(self, msg: str) -> None:
            self._say(malformed)

        def _say(self, answer: tuple[h11.Response, bytes]) -> None:
            # Once an answer has begun, cutting it off is all that can be said.
            if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
                head, body = answer
                for event in (head, h11.Data(data=body), h11.EndOfMessage()):
                    self.transport.write(self.conn.send(event) or b"")
            self.transport.close()

    return Protocol
