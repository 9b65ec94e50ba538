"""A gRPC service that sells messages: each RPC counts as one of its caller's plan, before it is handled.

    export TOLLWAY_QUOTA_ADDR=127.0.0.1:7102     # and TOLLWAY_RPC_TOKEN, as quota has it
    export DEMO_ACCOUNT=acct_…
    python examples/grpc_service.py 127.0.0.1:8001

Callers send their key as metadata, `x-api-key: demo-key`; DEMO_ACCOUNT says whose it is: an account's
id at tollway; `tollway whoami` prints it.
The service is `example.Messages/Send`, from and to google.protobuf.StringValue.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

import grpc
from google.protobuf.wrappers_pb2 import StringValue

from tollway.client import Quota
from tollway.client.grpc import QuotaInterceptor

QUOTA = os.environ.get("TOLLWAY_QUOTA_ADDR", "127.0.0.1:7102")
TOKEN = os.environ.get("TOLLWAY_RPC_TOKEN", "")
# A real service has its own users; what it needs to know is each one's account at tollway.
ACCOUNTS = {"demo-key": os.environ["DEMO_ACCOUNT"]}


def account_of(call: grpc.HandlerCallDetails) -> str | None:
    return ACCOUNTS.get(str(dict(call.invocation_metadata or ()).get("x-api-key", "")))


async def send(request: StringValue, context: Any) -> StringValue:
    # The interceptor let pass whom it does not know, so that this can say so in its own words.
    if dict(context.invocation_metadata()).get("x-api-key") not in ACCOUNTS:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "Who are you?")
    return StringValue(value=f"sent: {request.value}")


async def main(address: str) -> None:
    # The three lines. The client is closed after the server has stopped.
    async with Quota(QUOTA, token=TOKEN) as quota:
        gate = QuotaInterceptor(quota, meter="messages", account=account_of)
        server = grpc.aio.server(interceptors=[gate])

        method = grpc.unary_unary_rpc_method_handler(send, StringValue.FromString, StringValue.SerializeToString)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("example.Messages", {"Send": method}),))
        server.add_insecure_port(address)
        await server.start()
        stopped = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        await stopped.wait()
        await server.stop(5)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8001"))
