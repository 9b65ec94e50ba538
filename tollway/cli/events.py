"""events tail: what the services announce, as it happens."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

import typer

from tollway.cli import output
from tollway.cli.command import current
from tollway.cli.errors import UNREACHABLE, USAGE, CliError

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from tollway.client import Event

DEFAULT_NATS_URL = "nats://127.0.0.1:14222"
CONNECT_S = 5.0


def tail(
    nats_url: Annotated[
        str | None,
        typer.Option("--nats-url", metavar="URL", help=f"Else TOLLWAY_NATS_URL, else {DEFAULT_NATS_URL}."),
    ] = None,
    from_start: Annotated[bool, typer.Option("--from-start", help="Everything the stream holds, then on.")] = False,
    kinds: Annotated[
        list[str] | None, typer.Option("--type", metavar="NAME", help="Only these, such as TierChanged. Repeatable.")
    ] = None,
    account: Annotated[str | None, typer.Option("--account", metavar="ID", help="Only this account's.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Stop after so many.")] = None,
) -> None:
    """Print events as they happen, one a line.

    With --json each line is a JSON object.

    Example:
      tollway events tail --type TierChanged --from-start
    """
    import asyncio

    url = nats_url or os.environ.get("TOLLWAY_NATS_URL") or DEFAULT_NATS_URL
    if urlsplit(url).scheme not in {"nats", "tls", "ws", "wss"}:
        raise CliError("not a NATS address", code=USAGE, next_step=f"try --nats-url {DEFAULT_NATS_URL}")
    try:
        asyncio.run(_tail(url, from_start, kinds or [], account, limit))
    except ConnectionError as error:
        raise CliError(
            f"no NATS server answers at {_without_password(url)}", code=UNREACHABLE, next_step="is it running?"
        ) from error


async def _tail(url: str, from_start: bool, kinds: list[str], account: str | None, limit: int | None) -> None:
    from contextlib import aclosing

    from tollway.client import subscribe

    start: Literal["beginning", "now"] = "beginning" if from_start else "now"
    try:
        events = subscribe(url, *_types(kinds), account=account or "*", start=start, wait_s=CONNECT_S)
        async with aclosing(events) as stream:
            printed = 0
            async for event in stream:
                output.out(_json(event) if current.as_json else _line(event))
                printed += 1
                if printed == limit:
                    return
    except ValueError as error:
        raise CliError(str(error), code=USAGE) from error


def _types(kinds: list[str]) -> list[type[Message]]:
    from tollway.client.events import announced

    known = {cls.DESCRIPTOR.name: cls for cls in announced()}
    if wrong := [kind for kind in kinds if kind.rsplit(".", 1)[-1] not in known]:
        names = ", ".join(sorted(known))
        raise CliError(f"no event is called {output.plain(wrong[0])}", code=USAGE, next_step=f"there are {names}")
    return [known[kind.rsplit(".", 1)[-1]] for kind in kinds]


def _json(event: Event[Message]) -> str:
    body = {
        "id": event.id,
        "type": event.type,
        "time": _stamp(event),
        "account_id": event.account_id,
        "sequence": event.sequence,
        "data": _data(event.message),
    }
    return json.dumps(body, ensure_ascii=False)


def _line(event: Event[Message]) -> str:
    name = event.type.rsplit(".", 1)[-1]
    facts = " ".join(f"{key}={value}" for key, value in _flat(_data(event.message)) if key != "account_id")
    head = f"{output.paint(_stamp(event), 'dim')}  {output.paint(output.plain(name), 'bold')}"
    return f"{head}  {output.plain(event.account_id)}  {output.plain(facts)}"


def _stamp(event: Event[Message]) -> str:
    return event.time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _data(message: Message) -> dict[str, Any]:
    """Protobuf's JSON with the contract's field names: 64-bit numbers are strings, unset fields are left out."""
    from google.protobuf.any_pb2 import Any as AnyProto
    from google.protobuf.json_format import MessageToDict

    if isinstance(message, AnyProto):
        return {"unknown": message.type_url, "bytes": len(message.value)}
    fields: dict[str, Any] = MessageToDict(message, preserving_proto_field_name=True)
    return fields


def _flat(data: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """`invoice.number=ABCD-1`; a value with spaces is quoted, of a list its length is told: --json has it all."""
    if not prefix and len(data) == 1 and isinstance(only := next(iter(data.values())), dict):
        data = only
    pairs: list[tuple[str, str]] = []
    for key, value in data.items():
        if isinstance(value, dict):
            pairs += _flat(value, f"{prefix}{key}.")
        elif isinstance(value, str) and value and not any(c.isspace() or c in "\"'" for c in value):
            pairs.append((prefix + key, value))
        elif isinstance(value, list):
            pairs.append((prefix + key, f"[{len(value)}]"))
        else:
            pairs.append((prefix + key, json.dumps(value, ensure_ascii=False)))
    return pairs


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}"
