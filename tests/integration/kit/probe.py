"""A gRPC service of one method, served and called as the kit does it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.wrappers_pb2 import StringValue

from services.kit.config import Settings
from services.kit.rpc import Link, Server

SERVICE = "probe.v1.Probe"
Handle = Callable[[StringValue, Any], Awaitable[StringValue]]


async def echo(request: StringValue, _: Any) -> StringValue:
    return request


def register(handle: Handle, server: Any) -> None:
    """What a generated `add_…Servicer_to_server` does, for a service of one method."""
    method = grpc.unary_unary_rpc_method_handler(handle, StringValue.FromString, StringValue.SerializeToString)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Call": method}),))


@contextlib.asynccontextmanager
async def serving(handle: Handle, server_settings: Settings, client_settings: Settings) -> AsyncIterator[Link]:
    server = Server(server_settings, 0)
    server.add(register, handle, SERVICE)
    await server.start()
    link = Link(f"127.0.0.1:{server.port}", client_settings, timeout_s=5)
    try:
        yield link
    finally:
        await link.close()
        await server.stop()


def method(link: Link) -> Callable[..., Awaitable[StringValue]]:
    made: Any = link.channel.unary_unary(f"/{SERVICE}/Call", StringValue.SerializeToString, StringValue.FromString)
    return made  # type: ignore[no-any-return]


LOCAL = Settings(local=True)
WITH_TOKEN = Settings(rpc_token="t0ken")
