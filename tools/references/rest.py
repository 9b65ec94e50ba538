"""The page on REST, from the gateway's own OpenAPI document."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

from gateway import openapi
from gateway.app import create
from gateway.backend import Backend
from gateway.settings import GatewaySettings
from tools.references.markdown import anchor, code, joined, table

Json = dict[str, Any]

_METHODS = ("get", "post", "put", "patch", "delete")
_PROBLEM = "application/problem+json"


def page() -> str:
    """The page, of the document as `/openapi.json` serves it."""
    return _Page(asyncio.run(_document())).text()


async def _document() -> Json:
    # Never dialled: the document is made from the routes alone.
    settings = GatewaySettings(local=True, rpc_token="unused", public_url="https://api.example.com")  # noqa: S106
    backend = Backend(settings)
    try:
        document: Json = json.loads(json.dumps(openapi.document(create(settings, backend), settings.public_url)))
        return document
    finally:
        await backend.close()


class _Page:
    def __init__(self, document: Json) -> None:
        self.document = document
        self.problems: dict[str, Json] = {}
        self.schemas: dict[str, Json] = document["components"]["schemas"]
        self.shown: dict[str, None] = {}  # schemas that an operation names, in order

    def text(self) -> str:
        by_tag: dict[str, list[tuple[str, str, Json]]] = {}
        for path, item in self.document["paths"].items():
            for method in _METHODS:
                if method in item:
                    tag = (item[method].get("tags") or ["other"])[0]
                    by_tag.setdefault(tag, []).append((method.upper(), path, item[method]))
        contents = [
            (f"[`{method} {path}`](#{anchor(_heading(method, path))})", operation.get("summary", ""), _who(operation))
            for operations in by_tag.values()
            for method, path, operation in operations
        ]
        blocks = [
            "# REST",
            self.document["info"].get("description", ""),
            "The same to read at the gateway's `/docs`, and as OpenAPI 3.1 at `/openapi.json`, for generators. Who may "
            "act for an account is told in [identity.md](../identity.md). Every answer has `X-Request-Id`, which names "
            "the request in the logs; a request may bring its own.",
            table(("Route", "Does", "Credential"), contents),
        ]
        about = {tag["name"]: tag.get("description", "") for tag in self.document.get("tags", [])}
        for tag, operations in by_tag.items():
            blocks += [f"## Routes: {tag}", about.get(tag, "")]
            blocks += [self._operation(*each) for each in operations]
        blocks += ["## Objects", *self._objects(), "## Problems", self._problem_table()]
        return joined(*blocks)

    def _operation(self, method: str, path: str, operation: Json) -> str:
        answers = []
        for status, response in sorted(operation["responses"].items()):
            response = self._resolved(response)
            content = response.get("content", {})
            for media, body in content.items():
                if media == _PROBLEM:
                    for name, example in body.get("examples", {}).items():
                        self.problems.setdefault(name, example.get("value", {}))
            if not status.startswith(("1", "2", "3")):
                continue
            bodies = [self._type(body.get("schema", {})) for media, body in content.items() if media != _PROBLEM]
            said = response.get("description", "")
            redundant = {"Successful Response", operation.get("summary")}
            headers = [code(name) for name in response.get("headers", {}) if name != "X-Request-Id"]
            answers.append((status, ", ".join(bodies), "" if said in redundant else said, ", ".join(headers)))
        refusals = [
            (status, self._resolved(response).get("description", ""))
            for status, response in sorted(operation["responses"].items())
            if status.startswith(("4", "5"))
        ]
        return joined(
            f"### {_heading(method, path)}",
            f"**{operation.get('summary', '')}.** {operation.get('description', '')}".strip(),
            f"Credential: {_who(operation)}.",
            self._parameters(operation),
            self._body(operation),
            table(("Status", "Answer", "", "Headers"), answers),
            table(("Refused with", "Codes"), refusals),
        )

    def _parameters(self, operation: Json) -> str:
        rows = []
        for parameter in map(self._resolved, operation.get("parameters", [])):
            if parameter["name"] == "X-Request-Id":
                continue
            required = "" if not parameter.get("required") or parameter["in"] == "path" else "Required. "
            about = f"{required}{parameter.get('description', '')}"
            rows.append((code(parameter["name"]), parameter["in"], self._type(parameter.get("schema", {})), about))
        return table(("Parameter", "In", "Type", ""), rows)

    def _body(self, operation: Json) -> str:
        body = self._resolved(operation.get("requestBody", {}))
        blocks = []
        for media, content in body.get("content", {}).items():
            schema = self._resolved(content.get("schema", {}))
            optional = "" if body.get("required") else ", optional"
            blocks += [f"Body ({media}{optional}):", self._members(schema)]
        return joined(*blocks) if blocks else ""

    def _members(self, schema: Json) -> str:
        """A table of an object's members; nothing for what is no object."""
        for part in schema.get("allOf", []):
            found = self._resolved(part)
            schema = {
                "required": [*schema.get("required", []), *found.get("required", [])],
                "properties": {**schema.get("properties", {}), **found.get("properties", {})},
            }
        required = set(schema.get("required", []))
        rows = [
            (
                code(name),
                self._type(member),
                "" if name in required else "optional",
                _about(member),
            )
            for name, member in schema.get("properties", {}).items()
        ]
        return table(("Member", "Type", "", ""), rows)

    def _type(self, schema: Json) -> str:
        if reference := schema.get("$ref"):
            name = str(reference).rpartition("/")[2]
            self.shown[name] = None
            return f"[{_title(name)}](#{anchor(_title(name))})"
        if parts := schema.get("anyOf") or schema.get("oneOf"):
            return " or ".join(dict.fromkeys(self._type(part) for part in parts))
        if "allOf" in schema:
            return " and ".join(self._type(part) for part in schema["allOf"])
        if "const" in schema:
            return code(json.dumps(schema["const"]))
        if "enum" in schema:
            return " or ".join(code(json.dumps(value)) for value in schema["enum"])
        kind = schema.get("type", "any")
        if isinstance(kind, list):
            return " or ".join(kind)
        if kind == "array":
            return f"list of {self._type(schema.get('items', {}))}"
        return f"{kind} ({schema['format']})" if "format" in schema else str(kind)

    def _objects(self) -> list[str]:
        """What answers consist of, and what those consist of."""
        done: dict[str, str] = {}
        while waiting := [name for name in self.shown if name not in done]:
            for name in waiting:
                schema = self.schemas[name]
                done[name] = joined(f"### {_title(name)}", schema.get("description", ""), self._members(schema))
        return [done[name] for name in sorted(done, key=_title) if name != "Problem"]

    def _problem_table(self) -> str:
        problem = joined(
            "Every refusal is `application/problem+json` (RFC 9457). What a code means is told at `/problems#<code>`, "
            "too. The members of all:",
            self._members(self.schemas["Problem"]),
        )
        rows = [
            (code(name), value.get("status", ""), value.get("detail", ""))
            for name, value in sorted(self.problems.items())
        ]
        return joined(
            problem, "The codes of tollway itself; a catalog adds its own:", table(("Code", "Status", ""), rows)
        )

    def _resolved(self, part: Json) -> Json:
        while reference := part.get("$ref"):
            found: Any = self.document
            for name in str(reference).removeprefix("#/").split("/"):
                found = found[name]
            part = found
        return part


def _heading(method: str, path: str) -> str:
    return f"{method} {path}"


def _title(name: str) -> str:
    """`gateway__dialects__vatly__Checkout` → `Checkout (vatly)`; `Enveloped_Portal_` → `Enveloped Portal`."""
    if "__" in name:
        *_, where, last = name.split("__")
        return f"{last} ({where})"
    return name.replace("_", " ").strip()


def _about(member: Json) -> str:
    said = member.get("description", "")
    least, most = member.get("minLength"), member.get("maxLength")
    bounds = f"{f'{least} to' if least else 'At most'} {most} characters." if most else ""
    examples = member.get("examples") or []
    shown = f"Such as {code(json.dumps(examples[0], ensure_ascii=False))}." if examples else ""
    default = f"{code(json.dumps(member['default']))} unless given." if member.get("default") is not None else ""
    return " ".join(filter(None, (said, bounds, default, shown)))


def _who(operation: Json) -> str:
    names = [name for way in operation.get("security", []) for name in way]
    words = {
        "apiKey": "API key",
        "accessToken": "access token",
        "session": "session",
        "identityProvider": "outside token",
        "operatorToken": "operator's token",
    }
    told = [words.get(name) or re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower() for name in names]
    return ", ".join(told) if told else "none"
