"""An ASGI service that sells messages: each request counts as one of its caller's plan, before it is answered.

    export TOLLWAY_QUOTA_ADDR=127.0.0.1:7102     # and TOLLWAY_RPC_TOKEN, as quota has it
    export DEMO_ACCOUNT=acct_…
    uvicorn examples.asgi_service:app --port 8000
    curl -i http://127.0.0.1:8000/ -H 'X-Api-Key: demo-key'

DEMO_ACCOUNT says whose key `demo-key` is: an account's id at tollway; `tollway whoami` prints it.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from typing import Any

from tollway.client import Quota
from tollway.client.asgi import QuotaMiddleware

QUOTA = os.environ.get("TOLLWAY_QUOTA_ADDR", "127.0.0.1:7102")
TOKEN = os.environ.get("TOLLWAY_RPC_TOKEN", "")
# A real service has its own users; what it needs to know is each one's account at tollway.
ACCOUNTS = {b"demo-key": os.environ["DEMO_ACCOUNT"]}


def account_of(scope: MutableMapping[str, Any]) -> str | None:
    return ACCOUNTS.get(dict(scope["headers"]).get(b"x-api-key", b""))


async def service(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    # The middleware let pass whom it does not know, so that this can say so in its own words.
    status, text = (401, b"Who are you?\n") if account_of(scope) is None else (200, b"Sent.\n")
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": text})


# The three lines.
quota = Quota(QUOTA, token=TOKEN)
app = QuotaMiddleware(service, quota, meter="messages", account=account_of)
