"""HTTP/1.1 as uvicorn speaks it, except that bytes which are no HTTP get a problem document too."""

from __future__ import annotations

import json

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from gateway.problems import MEDIA_TYPE, Problem


def protocol(public_url: str) -> type[H11Protocol]:
    """The protocol class for `uvicorn.Config(http=…)`."""
    document = Problem("malformed_http").document(public_url, "/")
    body = json.dumps(document, separators=(",", ":")).encode()
    headers = [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"connection", b"close"),
    ]

    class Protocol(H11Protocol):
        def send_400_response(self, msg: str) -> None:
            if self.conn.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
                self.transport.close()  # an answer has begun; cutting it off is all that can be said
                return
            answer = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
            for event in (answer, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
            self.transport.close()

    return Protocol
