"""One way of gRPC for every service: errors by name, nobody unknown let in, deadlines, limits, a clean stop."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from local import ports
from services.kit import correlation, errors, rpc, telemetry
from services.kit.config import Settings
from services.kit.rpc import Link, Server
from tests.crash.harness import eventually
from tests.integration.kit.probe import LOCAL, SERVICE, WITH_TOKEN, Handle, echo, method, register, serving


async def call(handle: Handle, value: str = "x", *, timeout_s: float | None = None) -> StringValue:
    async with serving(handle, LOCAL, LOCAL) as link:
        return await link.call(method(link), StringValue(value=value), timeout_s=timeout_s)


def raising(error: BaseException) -> Handle:
    async def handle(_: StringValue, __: Any) -> StringValue:
        raise error

    return handle


KINDS = sorted(errors.TollwayError.__subclasses__(), key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
async def test_a_named_error_arrives_as_it_was_raised(kind: type[errors.TollwayError]) -> None:
    error = kind(
        "A sentence for people: ümlaut, %, 100 €.",
        reason="EXAMPLE_REASON",
        field="amount_minor",
        retry_after=timedelta(milliseconds=1500),
        meter="messages",
        limit="100000",
    )
    with pytest.raises(errors.TollwayError) as caught:
        await call(raising(error))
    assert type(caught.value) is kind
    assert caught.value.message == error.message
    assert caught.value.error_reason == "EXAMPLE_REASON"
    assert caught.value.field == "amount_minor"
    assert caught.value.retry_after == timedelta(milliseconds=1500)
    assert caught.value.metadata == {"meter": "messages", "limit": "100000"}


async def test_an_error_carries_googles_details_for_clients_in_any_language() -> None:
    error = errors.InvalidArgument("must be positive", field="amount", retry_after=timedelta(seconds=2), meter="m")
    async with serving(raising(error), LOCAL, LOCAL) as link:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(link)(StringValue())
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "must be positive"
    [packed] = [value for key, value in caught.value.trailing_metadata() or () if key == "grpc-status-details-bin"]
    status = Status.FromString(packed)
    assert status.code == 3
    info, request, retry = ErrorInfo(), BadRequest(), RetryInfo()
    for detail, message in zip(status.details, (info, request, retry), strict=True):
        assert detail.Unpack(message)
    assert (info.reason, info.domain, dict(info.metadata)) == ("INVALID_ARGUMENT", "tollway", {"meter": "m"})
    assert [(v.field, v.description) for v in request.field_violations] == [("amount", "must be positive")]
    assert retry.retry_delay.seconds == 2


@pytest.mark.parametrize(
    "error", [ValueError("sk_live_SECRET at /etc/passwd"), KeyError("SECRET"), RuntimeError("SELECT SECRET")], ids=repr
)
async def test_an_unexpected_error_does_not_tell_its_text(error: Exception) -> None:
    async with serving(raising(error), LOCAL, LOCAL) as link:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(link)(StringValue())
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    told = f"{caught.value.details()} {caught.value.trailing_metadata()}"
    assert not re.search("SECRET|passwd|SELECT|Error|Traceback", caught.value.details() or "")
    assert "SECRET" not in told


async def test_a_database_that_is_away_is_unavailable_with_a_time_to_retry() -> None:
    engine = create_async_engine(f"postgresql+asyncpg://u:SECRET@127.0.0.1:{ports.reserve()}/x")

    async def handle(request: StringValue, _: Any) -> StringValue:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
        return request

    with pytest.raises(errors.Unavailable) as caught:
        await call(handle)
    assert caught.value.error_reason == "STORE_UNAVAILABLE"
    assert caught.value.retry_after == timedelta(seconds=1)
    assert "SECRET" not in caught.value.message


async def test_the_callers_deadline_ends_the_handler_too() -> None:
    ended = asyncio.Event()

    async def handle(_: StringValue, __: Any) -> StringValue:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    async with serving(handle, LOCAL, LOCAL) as link:
        with pytest.raises(errors.DeadlineExceeded):
            await link.call(method(link), StringValue(), timeout_s=0.2)
        await asyncio.wait_for(ended.wait(), 5)


@pytest.mark.parametrize("asked_s", [None, 3600.0])
async def test_a_caller_without_a_deadline_gets_ours(monkeypatch: pytest.MonkeyPatch, asked_s: float | None) -> None:
    monkeypatch.setattr(rpc, "MAX_HANDLING_S", 0.2)

    async def handle(_: StringValue, __: Any) -> StringValue:
        await asyncio.Event().wait()
        raise AssertionError

    async with serving(handle, LOCAL, LOCAL) as link:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(link)(StringValue(), timeout=asked_s)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert caught.value.details() == "This took too long."


async def test_a_handlers_own_timeout_is_not_blamed_on_the_caller() -> None:
    with pytest.raises(errors.Unavailable):
        await call(raising(TimeoutError()))


async def test_five_megabytes_are_refused_and_three_are_not() -> None:
    async with serving(echo, LOCAL, LOCAL) as link:
        with pytest.raises(errors.ResourceExhausted) as caught:
            await link.call(method(link), StringValue(value="x" * 5_000_000))
        assert caught.value.error_reason == "MESSAGE_TOO_LARGE"
        answer = await link.call(method(link), StringValue(value="x" * 3_000_000))
        assert len(answer.value) == 3_000_000


async def test_what_is_larger_than_memory_should_bear_never_reaches_us() -> None:
    async with serving(echo, LOCAL, LOCAL) as link:
        with pytest.raises(errors.ResourceExhausted):
            await link.call(method(link), StringValue(value="x" * 20_000_000))


@pytest.mark.parametrize("sent", [b"\xff\xff\xff", b"\x0a\x05ab", b"\x0a\x02\xff\xfe"], ids=["tag", "cut", "no-utf8"])
async def test_bytes_that_are_no_message_are_refused_without_a_word_of_python(sent: bytes) -> None:
    async with serving(echo, LOCAL, LOCAL) as link:
        raw: Any = link.channel.unary_unary(f"/{SERVICE}/Call")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await raw(sent)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "The bytes are no message of this method."
    assert rpc.from_rpc_error(caught.value).error_reason == "MALFORMED_MESSAGE"


async def test_a_requests_id_goes_through_every_service_into_its_log() -> None:
    seen: list[str] = []

    async def last(request: StringValue, _: Any) -> StringValue:
        seen.append(logged())
        return request

    async with serving(last, LOCAL, LOCAL) as second:

        async def first(request: StringValue, _: Any) -> StringValue:
            seen.append(logged())
            return await second.call(method(second), request)

        async with serving(first, LOCAL, LOCAL) as link:

            async def ask(ident: str) -> None:
                correlation.request_id.set(ident)
                await link.call(method(link), StringValue())

            await asyncio.gather(*(ask(f"req_{number}") for number in range(5)))
            await link.call(method(link), StringValue())
    assert sorted(seen) == sorted([f"req_{number}" for number in range(5)] * 2 + ["", ""])


@pytest.mark.parametrize("ident", ["x" * 129, "", b"\xff\x00"])
async def test_an_id_that_is_none_is_left_out(ident: str | bytes) -> None:
    seen: list[str] = []

    async def handle(request: StringValue, _: Any) -> StringValue:
        seen.append(correlation.request_id.get())
        return request

    async with serving(handle, LOCAL, LOCAL) as link:
        named = "x-request-id-bin" if isinstance(ident, bytes) else "x-request-id"
        await method(link)(StringValue(), metadata=((named, ident),))
    assert seen == [""]


def logged() -> str:
    """The request's id as a line in the log of this task has it."""
    event = telemetry.named("probe")(None, "info", {"event": "x"})
    return str(event.get("request_id", ""))


@pytest.mark.parametrize("token", ["", "wrong", "t0ken "])
async def test_a_caller_without_the_token_is_unauthenticated(token: str) -> None:
    async with serving(echo, WITH_TOKEN, Settings(local=True, rpc_token=token)) as link:
        with pytest.raises(errors.Unauthenticated) as caught:
            await link.call(method(link), StringValue())
        assert caught.value.error_reason == "RPC_TOKEN_REQUIRED"
        assert await link.healthy()  # probes carry no token


async def test_a_caller_with_the_token_is_served() -> None:
    async with serving(echo, WITH_TOKEN, WITH_TOKEN) as link:
        assert (await link.call(method(link), StringValue(value="x"))).value == "x"


async def test_a_service_that_is_away_is_unavailable_and_its_address_stays_private() -> None:
    port = ports.reserve()
    link = Link(f"127.0.0.1:{port}", LOCAL)
    with pytest.raises(errors.Unavailable) as caught:
        await link.call(method(link), StringValue())
    assert str(port) not in caught.value.message
    assert not await link.healthy()
    await link.close()


async def test_a_link_finds_its_service_again_after_a_restart() -> None:
    port = ports.reserve()
    link = Link(f"127.0.0.1:{port}", LOCAL)
    for _ in range(2):
        server = Server(LOCAL, port)
        server.add(register, echo, SERVICE)
        await server.start()
        await eventually(link.healthy, within_s=5)
        await server.stop()
    await link.close()


async def test_reflection_lists_the_services() -> None:
    async with serving(echo, WITH_TOKEN, WITH_TOKEN) as link:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(link.channel)

        async def ask() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
            yield reflection_pb2.ServerReflectionRequest(list_services="")

        answers = [answer async for answer in stub.ServerReflectionInfo(ask())]
    names = {service.name for service in answers[0].list_services_response.service}
    assert names == {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


async def test_a_second_server_on_one_port_fails() -> None:
    first = Server(LOCAL, 0)
    await first.start()
    with pytest.raises(RuntimeError, match="bind"):
        await Server(LOCAL, first.port).start()
    await first.stop()


async def test_stopping_lets_a_running_call_finish_and_takes_no_new_one() -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def handle(request: StringValue, _: Any) -> StringValue:
        entered.set()
        await go_on.wait()
        return request

    server = Server(LOCAL, 0)
    server.add(register, handle, SERVICE)
    await server.start()
    link = Link(f"127.0.0.1:{server.port}", LOCAL)
    running = asyncio.create_task(link.call(method(link), StringValue(value="x")))
    await entered.wait()
    stopping = asyncio.create_task(server.stop())

    async def refuses() -> bool:
        return not await link.healthy()

    await eventually(refuses)
    assert not running.done()
    go_on.set()
    assert (await running).value == "x"
    await stopping
    await link.close()


DRAINING = """
import asyncio, sys
from contextlib import asynccontextmanager
from services.kit import process, telemetry
from services.kit.rpc import Server
from tests.integration.kit.probe import LOCAL, SERVICE, register

async def slow(request, context):
    print("entered", flush=True)
    await asyncio.sleep(1)
    return request

@asynccontextmanager
async def service(tasks):
    server = Server(LOCAL, int(sys.argv[1]))
    server.add(register, slow, SERVICE)
    await server.start()
    print("serving", flush=True)
    yield
    await server.stop()

telemetry.configure_logs("drain", "error")
process.run(service)
"""


async def test_sigterm_drains_the_process() -> None:
    port = ports.reserve()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", DRAINING, str(port), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"serving\n"
    link = Link(f"127.0.0.1:{port}", LOCAL)
    running = asyncio.create_task(link.call(method(link), StringValue(value="x")))
    assert await process.stdout.readline() == b"entered\n"
    process.send_signal(signal.SIGTERM)
    assert (await running).value == "x"
    _, complaints = await process.communicate()
    assert process.returncode == 0, complaints.decode()
    await link.close()


async def test_a_process_whose_port_is_taken_says_so_in_a_line() -> None:
    server = Server(LOCAL, 0)
    await server.start()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", DRAINING, str(server.port), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    _, complaints = await process.communicate()
    await server.stop()
    assert process.returncode == 74
    lines = [line for line in complaints.decode().splitlines() if line.startswith("cannot listen: ")]
    assert str(server.port) in lines[0]
    assert "Traceback" not in complaints.decode()
