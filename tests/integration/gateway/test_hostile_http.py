"""What is sent to harm: slow, huge, in the wrong method, place or type. Each is told so, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time

import pytest

from gateway import body, http
from gateway.openapi.examples import of_path
from tests.integration.gateway.conftest import Stack
from tests.integration.gateway.test_hostile import JSON, raw
from tests.integration.gateway.test_routes import WHO, assert_problem

pytestmark = pytest.mark.asyncio(loop_scope="module")
MANY = 200


async def test_ten_megabytes_are_refused_before_they_are_read(stack: Stack) -> None:
    began = time.process_time()
    content = json.dumps({**WHO, "name": "x" * 10_000_000}).encode()
    assert_problem(await stack.http.post("/v1/signup", content=content, headers=JSON), 413, "body_too_large")
    assert time.process_time() - began < 5
    assert (await stack.http.post("/v1/signup", json=WHO)).status_code == 201


async def _trickle(port: int, head: bytes) -> bytes:
    """Sends a byte now and then until it is cut off; what it was told."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head)
    told = b""
    with contextlib.suppress(ConnectionError):  # whoever goes on sending to a closed connection is reset
        while not reader.at_eof():
            with contextlib.suppress(TimeoutError):
                told += await asyncio.wait_for(reader.read(65536), 0.05)
            if b" 408 " not in told:
                writer.write(b"a")
    writer.close()
    return told


@pytest.mark.parametrize(
    ("head", "code"),
    [
        (
            b"POST /v1/signup HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n",
            "body",
        ),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ", "head"),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ", "head"),
    ],
    ids=["body", "head", "second-head"],
)
async def test_two_hundred_that_trickle_are_each_cut_off_and_others_are_served_meanwhile(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, head: bytes, code: str
) -> None:
    monkeypatch.setattr(body, "READ_S", 2.0)
    monkeypatch.setattr(http, "HEAD_S", 2.0)
    slow = [asyncio.create_task(_trickle(stack.port, head)) for _ in range(MANY)]
    served = 0
    while not all(task.done() for task in slow):
        assert (await stack.http.get("/healthz")).status_code == 200
        served += 1
        await asyncio.sleep(0.05)
    assert served > 3
    # A reset may overtake the answer, or its end, on its way to somebody who goes on sending.
    last = [answer.rpartition(b"HTTP/1.1 ")[2] for answer in await asyncio.gather(*slow)]
    assert {answer[:4] for answer in last} <= {b"408 ", b"200 " if head.count(b"GET") == 2 else b"", b""}
    whole = [answer for answer in last if answer.startswith(b"408 ") and answer.endswith(b"}")]
    assert whole
    assert all(f'"code":"{code}_timeout"'.encode() in answer for answer in whole)


async def test_a_connection_on_which_nothing_comes_is_closed(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "HEAD_S", 0.2)
    assert await raw(stack, b"") == b""


async def _described(stack: Stack) -> list[tuple[str, dict[str, dict]]]:
    document = (await stack.http.get("/openapi.json")).json()
    return [(of_path(path), methods) for path, methods in document["paths"].items()]


async def test_every_path_refuses_other_methods_with_those_that_it_takes(stack: Stack) -> None:
    for path, methods in await _described(stack):
        known = {method.upper() for method in methods}
        expected = known | ({"HEAD"} if "GET" in known else set())
        for method in ("OPTIONS", "TRACE", "PATCH", "BREW", "get"):
            answer = await stack.http.request(method, path) if method != "get" else await _lower_case(stack, path)
            if method == "get":
                assert b" 405 " in answer.partition(b"\r\n")[0], path
                continue
            assert_problem(answer, 405, "method_not_allowed")
            assert set(answer.headers["allow"].split(", ")) == expected, path


async def _lower_case(stack: Stack, path: str) -> bytes:
    """Methods are case-sensitive (RFC 9110, section 9.1); clients correct them, so this goes by hand."""
    return await raw(stack, f"get {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())


async def test_no_path_answers_with_a_slash_behind_it_or_in_other_letters(stack: Stack) -> None:
    for path, methods in await _described(stack):
        if path.startswith("/api/download/object/"):
            continue  # whatever follows is the object's name
        for method in methods:
            for other in (f"{path}/", f"/{path}", path.replace("/v1/", "/V1/").replace("/api/", "/API/")):
                if other != path:
                    answer = await stack.http.request(method, f"http://127.0.0.1:{stack.port}{other}")
                    assert answer.status_code in {401, 404}, (method, other)
                    if answer.status_code == 404:
                        assert_problem(answer, 404, "route_not_found")


@pytest.mark.parametrize("sent", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
async def test_forms_and_text_are_415_wherever_json_is_taken_from_anyone(stack: Stack, sent: str) -> None:
    for path in ("/v1/signup",):
        answer = await stack.http.post(path, content=b"email=a%40example.com", headers={"Content-Type": sent})
        assert_problem(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize(
    "path",
    [
        "/<img src=x onerror=alert(1)>",
        "/{{7*7}}",
        "/%3Cscript%3Ealert(1)%3C/script%3E",
        "/v1/%00",
        "/v1/usage%0d%0aSet-Cookie:%20a=b",
        "/v1/orgs/%2e%2e/%2e%2e/etc/passwd",
        "/..%5c..%5cwindows",
        "/\u202e",
    ],
)
async def test_what_a_path_says_comes_back_only_as_an_address(stack: Stack, path: str) -> None:
    problem = assert_problem(await stack.http.get(path), 404, "route_not_found")
    assert problem["instance"].isascii()
    assert not set('<>{}"\\\x00\r\n') & set(problem["instance"])
    assert "49" not in problem["instance"]


@pytest.mark.parametrize("name", ["<img src=x onerror=alert(1)>", "{{7*7}}", "${7*7}", "'; DROP TABLE account; --"])
async def test_names_are_data(stack: Stack, name: str) -> None:
    answer = await stack.http.post("/v1/signup", json={"email": "ada@example.com", "name": name})
    assert (answer.status_code, answer.json()["account"]["name"]) == (201, name)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "line",
    [b"X-A: a\x00b", b"X-A: a\rb", b"X-A: a\x0bb", b"X A: b", b"X-A : b", b": b", b"X-A: \xff\xfe"],
    ids=["nul", "cr", "vt", "space-in-name", "space-before-colon", "no-name", "bytes"],
)
async def test_headers_that_are_none_are_400_or_harmless(stack: Stack, line: bytes) -> None:
    answer = await raw(stack, b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + line + b"\r\n\r\n")
    status = answer.split(b" ", 2)[1]
    assert status == (b"200" if line.endswith(b"\xfe") else b"400")
    if status == b"400":
        assert b'"code":"malformed_http"' in answer


@pytest.mark.parametrize("header", ["Idempotency-Key", "Authorization", "X-Request-Id", "Stripe-Signature"])
async def test_a_header_with_a_newline_splits_no_answer(stack: Stack, header: str) -> None:
    sent = f"POST /v1/signup HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}: a\r\n\tSet-Cookie: b=c\r\n\r\n"
    answer = await raw(stack, sent.encode())
    assert b"set-cookie" not in answer.lower()
    assert b"HTTP/1.1 500" not in answer
