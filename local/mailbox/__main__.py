"""`python -m local.mailbox`: SMTP on TOLLWAY_SMTP_PORT, the page and JSON on TOLLWAY_MAILBOX_PORT, 127.0.0.1 only."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from pathlib import Path

import uvicorn

from local.mailbox import smtp
from local.mailbox.api import Mailbox
from local.mailbox.store import Store

_HOST = "127.0.0.1"


def main() -> int:
    state = Path(os.environ.get("TOLLWAY_STATE") or ".tollway")
    parser = argparse.ArgumentParser(prog="python -m local.mailbox", description="Catches mails and shows them.")
    parser.add_argument("--port", type=int, default=int(os.environ.get("TOLLWAY_MAILBOX_PORT") or 8025))
    parser.add_argument("--smtp-port", type=int, default=int(os.environ.get("TOLLWAY_SMTP_PORT") or 1025))
    parser.add_argument("--state", type=Path, default=state / "mailbox", help="the folder that keeps the mails")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, stream=sys.stdout)
    logging.getLogger("mail.log").setLevel(logging.ERROR)  # it warns once per connection that AUTH needs no TLS
    return asyncio.run(_serve(options.port, options.smtp_port, options.state))


async def _serve(port: int, smtp_port: int, folder: Path) -> int:
    store = Store(folder)
    faults = smtp.Faults()
    server = uvicorn.Server(
        uvicorn.Config(Mailbox(store, faults).application(), _HOST, port, log_level="warning", lifespan="off")
    )
    mails = await smtp.serve(_HOST, smtp_port, store, faults)
    print(f"mails on smtp://{_HOST}:{smtp_port}, page on http://{_HOST}:{port}", flush=True)
    try:
        await server.serve()  # until SIGTERM or SIGINT
    finally:
        mails.close()
        store.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
