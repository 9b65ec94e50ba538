"""The OpenAPI 3.1 document: complete enough for a client generator and a fuzzer.

It is what the routes say of themselves (`gateway.operations`, their models), put in order: names without modules,
bodies among the components, an example of everything, headers that every answer has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from gateway import problems
from gateway.openapi import examples, links
from gateway.openapi.components import COMPONENTS, DESCRIPTION, TAGS
from gateway.operations import document_problem

_REF = "#/components/schemas/"
_METHODS = frozenset({"get", "put", "post", "delete", "patch"})
_OF_FRAMEWORK = ("HTTPValidationError", "ValidationError")
_WHOLE = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


def document(app: FastAPI, public_url: str) -> dict[str, Any]:
    """The document of all the routes that are in the schema."""
    described = get_openapi(
        title="tollway",
        version="1",
        openapi_version="3.1.0",
        description=DESCRIPTION,
        routes=app.routes,
        servers=[{"url": public_url, "description": "This installation"}],
        tags=[{"name": name, "description": text} for name, text in TAGS],
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    described["externalDocs"] = {"url": f"{public_url}/problems", "description": "Every problem's code, explained"}
    described = _each(described, _exact)
    components = described.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for path, _, operation in operations(described):
        _answer_422(operation)
        _hoist_body(operation, schemas)
        for parameter in operation.get("parameters", ()):
            if parameter.get("in") == "path":
                parameter.setdefault("example", examples.PARAMETERS.get(parameter["name"], parameter["name"]))
        operation.setdefault("parameters", []).append({"$ref": "#/components/parameters/RequestId"})
        for status, response in operation["responses"].items():
            response.setdefault("headers", {})["X-Request-Id"] = {"$ref": "#/components/headers/RequestId"}
            if response["description"] == "Successful Response":
                response["description"] = operation["summary"]
            found = links.of(operation["operationId"], status)
            if found:
                response["links"] = found
            problem = response.get("content", {}).get(problems.MEDIA_TYPE, {})
            for example in problem.get("examples", {}).values():
                value = example["value"]
                example["value"] = examples.of_problem(path, public_url, value["code"], value.get("status"))
    for name in _OF_FRAMEWORK:
        schemas.pop(name, None)
    described = _shorter_names(described)
    for kind, members in COMPONENTS.items():
        described["components"].setdefault(kind, {}).update(members)
    _show_examples(described)
    return described


def operations(described: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(path, method, operation) of each."""
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            if method in _METHODS:
                yield path, method, operation


def _each(value: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    if isinstance(value, dict):
        return change({key: _each(inner, change) for key, inner in value.items()})
    return [_each(inner, change) for inner in value] if isinstance(value, list) else value


def _exact(value: dict[str, Any]) -> dict[str, Any]:
    """The framework makes floats of bounds: 4.6e18 is not what the route compares with."""
    if value.get("type") != "integer":
        return value
    return {key: int(each) if key in _WHOLE and isinstance(each, float) else each for key, each in value.items()}


def _answer_422(operation: dict[str, Any]) -> None:
    """The framework says of each route with parameters that it answers 422 in its own shape. Ours refuse in ours, and
    only where a parameter of the query has a shape."""
    answer = operation["responses"].get("422")
    if answer is not None and "application/json" not in answer["content"]:
        return
    operation["responses"].pop("422", None)
    if any(parameter.get("in") == "query" and "$ref" not in parameter for parameter in operation.get("parameters", ())):
        responses: dict[int | str, dict[str, Any]] = {}
        document_problem(responses, "validation_failed")
        operation["responses"]["422"] = responses[422]


def _hoist_body(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    schema = content.get("schema", {})
    if "title" not in schema:
        return
    for name, inner in schema.pop("$defs", {}).items():
        schemas.setdefault(name, inner)
    name = schema["title"]
    if schemas.get(name, schema) != schema:  # two routes' bodies are called alike
        name = f"{''.join(map(str.title, operation['operationId'].split('_')))}{name}"
    schemas[name] = {**schema, "title": name}
    content["schema"] = {"$ref": _REF + name}


def _shorter_names(described: dict[str, Any]) -> dict[str, Any]:
    """Clients are generated with these names, and care neither for our modules nor for how generics are spelt."""
    schemas = described["components"]["schemas"]
    new = {name: _short(name) for name in schemas}
    new |= {name: name for name in new if list(new.values()).count(new[name]) > 1}

    def renamed(value: dict[str, Any]) -> dict[str, Any]:
        reference = value.get("$ref")
        if isinstance(reference, str) and reference.startswith(_REF):
            return {**value, "$ref": _REF + new[reference[len(_REF) :]]} if reference[len(_REF) :] in new else value
        return value

    described = _each(described, renamed)
    found = described["components"]["schemas"]
    described["components"]["schemas"] = {
        new[name]: {**schema, "title": new[name]} for name, schema in sorted(found.items())
    }
    return described


def _short(name: str) -> str:
    enveloped = re.fullmatch(r"(?:.*_)?Enveloped_(.+)_", name)
    if enveloped:
        return f"{_short(enveloped[1])}Envelope"
    *path, last = name.split("__")
    return f"{path[-1].title().replace('_', '')}{last}" if path else name


def _show_examples(described: dict[str, Any]) -> None:
    schemas = described["components"]["schemas"]
    for _, _, operation in operations(described):
        body = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if body is not None and "example" not in body:
            schema = body["schema"]
            body["example"] = examples.of_body(
                schemas[schema["$ref"][len(_REF) :]] if "$ref" in schema else schema, schemas
            )
        for response in operation["responses"].values():
            content = response.get("content", {}).get("application/json")
            if content is not None and "example" not in content:
                content["example"] = examples.of(content["schema"], schemas)
