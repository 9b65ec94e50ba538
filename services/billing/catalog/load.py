"""Reads a catalog file. What is wrong is told as file, line, field and what was expected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from services.billing.catalog.model import Catalog

Location = tuple[str | int, ...]


class CatalogError(Exception):
    """One line for each thing that is wrong."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class _Loader(yaml.SafeLoader):
    """YAML as data; a key given twice is an error instead of a silent loss."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def load_catalog(path: Path) -> Catalog:
    """Raises CatalogError when the file is missing, is no YAML, or says what no catalog may say."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise CatalogError([f"{path}: cannot be read: {error.strerror}"]) from error
    try:
        data = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
        lines = _lines(yaml.compose(text, Loader=yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise CatalogError([f"{path}:{mark.line + 1 if mark else 1}: {error.problem}"]) from error
    try:
        return Catalog.model_validate(data)
    except ValidationError as error:
        problems = [told for problem in error.errors() for told in _told(path, lines, dict(problem))]
        raise CatalogError(problems) from error


def _told(path: Path, lines: dict[Location, int], problem: dict[str, Any]) -> list[str]:
    message = str(problem["msg"]).removeprefix("Value error, ")
    location: Location = problem["loc"]
    if not location and problem["type"] == "value_error":
        # The catalog's own check of references: "where: what; where: what".
        found = [part.split(": ", 1) for part in message.split("; ")]
        return [f"{path}:{_line(lines, tuple(where.split('.')))}: {where}: {what}" for where, what in found]
    if problem["type"] == "extra_forbidden":
        message = "is not known here; check the spelling"
    field = ".".join(str(part) for part in location if not str(part).startswith(("function-", "literal", "cons")))
    return [f"{path}:{_line(lines, location)}: {field + ': ' if field else ''}{message}"]


def _line(lines: dict[Location, int], location: Location) -> int:
    while location and location not in lines:
        location = location[:-1]
    return lines.get(location, 1)


def _lines(node: yaml.Node | None, at: Location = ()) -> dict[Location, int]:
    if node is None:
        return {}
    found = {at: node.start_mark.line + 1}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            found |= _lines(value, (*at, key.value))
            found[(*at, key.value)] = key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            found |= _lines(value, (*at, index))
    return found
