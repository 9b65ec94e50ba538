"""Renders the document once; every answer is the same bytes."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from html import escape
from http import HTTPStatus
from pathlib import Path
from re import sub
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from gateway.openapi import operations

_FOLDER = Path(__file__).parent / "templates"
_STYLE = (_FOLDER / "reference.css").read_text()
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_SCHEMA = "#/components/schemas/"
Json = dict[str, Any]

HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-cache",
}


def render(described: Json) -> str:
    """The page of a document that `gateway.openapi.document` made."""
    environment = Environment(loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined)
    environment.filters |= {"prose": _prose, "pretty": _pretty, "phrase": lambda status: HTTPStatus(int(status)).phrase}
    tags = [(tag["name"], tag["description"]) for tag in described["tags"]]
    return environment.get_template("reference.html").render(
        style=Markup(_STYLE),  # noqa: S704 (our own file, not input)
        info=described["info"],
        server=described["servers"][0]["url"],
        schemes=described["components"]["securitySchemes"],
        groups=[
            (name, text, [_shown(*each, described) for each in operations(described) if name in each[2]["tags"]])
            for name, text in tags
        ],
    )


def _prose(text: str) -> Markup:
    """Paragraphs, with what stands in backticks as code."""
    paragraphs = (sub(r"`([^`]+)`", r"<code>\1</code>", escape(part)) for part in text.split("\n\n"))
    return Markup("".join(f"<p>{part}</p>" for part in paragraphs))  # noqa: S704 (escaped above)


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _shown(path: str, method: str, operation: Json, described: Json) -> Json:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    return {
        "id": operation["operationId"],
        "method": method.upper(),
        "path": path,
        "summary": operation["summary"],
        "description": operation["description"],
        "credentials": [name for each in operation.get("security", ()) for name in each],
        "parameters": [_parameter(each, described) for each in operation["parameters"]],
        "body": body and {"example": body["example"], "fields": list(_fields(body["schema"], described))},
        "answers": [
            _answer(status, each, operation, described) for status, each in sorted(operation["responses"].items())
        ],
    }


def _parameter(parameter: Json, described: Json) -> Json:
    if "$ref" in parameter:
        parameter = described["components"]["parameters"][parameter["$ref"].rsplit("/", 1)[1]]
    return {
        "name": parameter["name"],
        "place": parameter["in"],
        "required": parameter.get("required", False),
        "type": _type(parameter.get("schema", {})),
        "text": parameter.get("description", parameter.get("schema", {}).get("description", "")),
    }


def _answer(status: str, answer: Json, operation: Json, described: Json) -> Json:
    [(media, content)] = answer.get("content", {"": {}}).items()
    examples = [(name, each["value"]) for name, each in content.get("examples", {}).items()]
    if "example" in content:
        examples = [("", content["example"])]
    return {
        "status": status,
        "text": "" if answer["description"] == operation["summary"] else answer["description"],
        "media": media,
        "headers": sorted(name for name in answer["headers"] if name != "X-Request-Id"),
        "fields": list(_fields(content.get("schema", {}), described)) if int(status) < 400 else [],
        "examples": examples,
    }


def _fields(schema: Json, described: Json) -> Iterator[Json]:
    if "$ref" in schema:
        schema = described["components"]["schemas"][schema["$ref"].removeprefix(_SCHEMA)]
    for name, each in schema.get("properties", {}).items():
        required = name in schema.get("required", ())
        yield {"name": name, "type": _type(each), "required": required, "text": each.get("description", "")}


def _type(schema: Json) -> str:
    if "$ref" in schema:
        return str(schema["$ref"].removeprefix(_SCHEMA))
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return " | ".join(json.dumps(each) for each in schema.get("enum", [schema.get("const")]))
    kind = schema.get("type", "any")
    if kind == "array":
        return f"array of {_type(schema.get('items', {}))}"
    return " or ".join(kind) if isinstance(kind, list) else str(schema.get("format", kind))
