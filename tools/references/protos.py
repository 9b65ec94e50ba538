"""The pages on gRPC and on events, from the comments of the contract."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc_tools
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)
from grpc_tools import protoc

from tools.references.markdown import anchor, code, joined, table

# Numbers of fields in descriptor.proto: what a comment's path is made of.
_MESSAGE, _ENUM, _SERVICE = 4, 5, 6
_FIELD, _METHOD, _VALUE = 2, 2, 2
_SCALARS = {number: name.removeprefix("TYPE_").lower() for name, number in FieldDescriptorProto.Type.items()}
_TYPE_SAID = re.compile(r"\s*CloudEvents type: `[\w.]+`\.")
_WELL_KNOWN = {"google.protobuf.Timestamp": "timestamp", "google.protobuf.Duration": "duration"}


@dataclass(frozen=True)
class Source:
    """A proto file with its comments."""

    file: FileDescriptorProto
    comments: dict[tuple[int, ...], str]

    def said(self, *path: int) -> str:
        return self.comments.get(path, "")


@dataclass(frozen=True)
class Contract:
    """Every proto of ours, in the order of the services."""

    sources: list[Source]

    @classmethod
    def read(cls, protos: Path) -> Contract:
        """Raises SystemExit when they do not compile; protoc has said why."""
        files = sorted(path for path in protos.rglob("*.proto") if "envoy" not in path.parts)
        with tempfile.TemporaryDirectory() as folder:
            compiled = Path(folder) / "contract.binpb"
            includes = [f"-I{protos}", f"-I{Path(grpc_tools.__file__).parent / '_proto'}"]
            command = ["protoc", *includes, "--include_source_info", f"--descriptor_set_out={compiled}"]
            if protoc.main([*command, *map(str, files)]) != 0:
                sys.exit(1)
            found = FileDescriptorSet.FromString(compiled.read_bytes())
        order = {"billing": 0, "quota": 1, "notify": 2}
        files_in_order = sorted(found.file, key=lambda file: (order.get(_owner(file), 9), file.name))
        return cls([Source(file, _comments(file)) for file in files_in_order])

    def messages(self) -> dict[str, tuple[Source, int]]:
        """Full name → the file and the message's place in it."""
        return {
            f"{source.file.package}.{message.name}": (source, at)
            for source in self.sources
            for at, message in enumerate(source.file.message_type)
        }

    def enums(self) -> dict[str, tuple[Source, int]]:
        return {
            f"{source.file.package}.{enum.name}": (source, at)
            for source in self.sources
            for at, enum in enumerate(source.file.enum_type)
        }

    def service_title(self, source: Source, service: ServiceDescriptorProto) -> str:
        """The service's own name, with its package where another package has the same."""
        names = [each.name for other in self.sources for each in other.file.service]
        return service.name if names.count(service.name) == 1 else f"{service.name} ({source.file.package})"

    def title(self, full_name: str) -> str:
        """The message's or enum's own name, with its package where another package has the same."""
        package, _, name = full_name.rpartition(".")
        others = [other for other in (*self.messages(), *self.enums()) if other.rpartition(".")[2] == name]
        return name if len(others) == 1 else f"{name} ({package})"


def _link(title: str) -> str:
    return f"[{title}](#{anchor(title)})"


def _owner(file: FileDescriptorProto) -> str:
    return file.package.split(".")[1]


def _comments(file: FileDescriptorProto) -> dict[tuple[int, ...], str]:
    return {
        tuple(place.path): _tidy(place.leading_comments or place.trailing_comments)
        for place in file.source_code_info.location
        if place.leading_comments or place.trailing_comments
    }


def _tidy(comment: str) -> str:
    """The comment's paragraphs, each on one line."""
    paragraphs = "\n".join(line.strip() for line in comment.strip().splitlines()).split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def services_page(contract: Contract) -> str:
    services = [(source, at, service) for source in contract.sources for at, service in enumerate(source.file.service)]
    contents = [
        (_link(contract.service_title(source, service)), code(_owner(source.file)), source.said(_SERVICE, at))
        for source, at, service in services
    ]
    used = {name for source, _, service in services for name in _reached(contract, source, service)}
    return joined(
        "# gRPC",
        "Every service of tollway in the words of its contract, [`protos/tollway/`](../../protos/tollway). Errors are "
        "`google.rpc.Status` with `ErrorInfo` (domain `tollway`), `BadRequest` naming the field, and `RetryInfo` where "
        "waiting helps. A message over 4 MiB is RESOURCE_EXHAUSTED with the reason `MESSAGE_TOO_LARGE`, bytes that are "
        "no message of the method INVALID_ARGUMENT with `MALFORMED_MESSAGE`. The metadata `x-request-id` goes into log "
        "lines and on to what is called. "
        "A caller off loopback authenticates by the token in the metadata `authorization: Bearer …` "
        "(`TOLLWAY_RPC_TOKEN`) or by certificate. Health and reflection are open. Beside these, quota answers "
        "[Envoy's two services](../envoy.md), and [Python has a client](../client.md).",
        table(("Service", "Of", "About"), contents),
        *(_service(contract, source, at, service) for source, at, service in services),
        "## Messages",
        *(_message(contract, name) for name in contract.messages() if name in used),
        "## Enums",
        *(_enum(contract, name) for name in contract.enums()),
    )


def _service(contract: Contract, source: Source, at: int, service: ServiceDescriptorProto) -> str:
    title = contract.service_title(source, service)
    head = f"Full name `{source.file.package}.{service.name}`; served by {_owner(source.file)}."
    blocks = [f"## {title}", source.said(_SERVICE, at), head]
    for number, method in enumerate(service.method):
        blocks += [
            f"### {title.replace(service.name, f'{service.name}.{method.name}')}",
            source.said(_SERVICE, at, _METHOD, number),
            _fields(contract, method.input_type, "Takes"),
            _fields(contract, method.output_type, "Gives"),
        ]
    return joined(*blocks)


def _fields(contract: Contract, full_name: str, heading: str) -> str:
    source, at = contract.messages()[full_name.removeprefix(".")]
    message = source.file.message_type[at]
    about = source.said(_MESSAGE, at)
    if not message.field:
        return joined(f"**{heading}** nothing.", about)
    return joined(f"**{heading}**", about, _field_table(contract, source, (_MESSAGE, at), message))


def _field_table(contract: Contract, source: Source, path: tuple[int, ...], message: DescriptorProto) -> str:
    rows = [
        (code(field.name), _type(contract, message, field), source.said(*path, _FIELD, number))
        for number, field in enumerate(message.field)
    ]
    return table(("Field", "Type", ""), rows)


def _type(contract: Contract, message: DescriptorProto, field: FieldDescriptorProto) -> str:
    name = field.type_name.removeprefix(".")
    for nested in message.nested_type:
        if nested.options.map_entry and name.endswith(f".{message.name}.{nested.name}"):
            key, value = nested.field
            return f"map of {_type(contract, nested, key)} to {_type(contract, nested, value)}"
    if not name:
        told = _SCALARS[field.type]
    elif name in contract.messages() or name in contract.enums():
        told = _link(contract.title(name))
    else:
        told = _WELL_KNOWN.get(name, name)
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"list of {told}"
    return f"{told}, optional" if field.proto3_optional else told


def _message(contract: Contract, full_name: str) -> str:
    source, at = contract.messages()[full_name]
    message = source.file.message_type[at]
    return joined(
        f"### {contract.title(full_name)}",
        source.said(_MESSAGE, at),
        _field_table(contract, source, (_MESSAGE, at), message),
        *(_nested_enum(source, at, number, enum) for number, enum in enumerate(message.enum_type)),
    )


def _nested_enum(source: Source, at: int, number: int, enum: EnumDescriptorProto) -> str:
    return joined(f"`{enum.name}`:", _values(source, (_MESSAGE, at, 4, number), enum))


def _enum(contract: Contract, full_name: str) -> str:
    source, at = contract.enums()[full_name]
    enum = source.file.enum_type[at]
    return joined(f"### {contract.title(full_name)}", source.said(_ENUM, at), _values(source, (_ENUM, at), enum))


def _values(source: Source, path: tuple[int, ...], enum: EnumDescriptorProto) -> str:
    rows = [(code(value.name), source.said(*path, _VALUE, number)) for number, value in enumerate(enum.value)]
    return table(("Value", ""), rows)


def _parts(contract: Contract, full_name: str) -> Iterator[str]:
    """The messages that a message is made of, itself not included."""
    source, at = contract.messages()[full_name]
    message = source.file.message_type[at]
    for each in (message, *message.nested_type):
        for field in each.field:
            name = field.type_name.removeprefix(".")
            if name in contract.messages():
                yield name


def _reached(contract: Contract, source: Source, service: ServiceDescriptorProto) -> set[str]:
    """The messages inside the requests and answers of a service."""
    found: set[str] = set()
    waiting = [name.removeprefix(".") for method in service.method for name in (method.input_type, method.output_type)]
    while waiting:
        for name in _parts(contract, waiting.pop()):
            if name not in found:
                found.add(name)
                waiting.append(name)
    return found


def events_of(contract: Contract) -> list[tuple[Source, int, DescriptorProto]]:
    """The messages of the files events.proto that are no part of another one there."""
    found = []
    for source in contract.sources:
        if not source.file.name.endswith("/events.proto"):
            continue
        parts = {
            name
            for message in source.file.message_type
            for name in _parts(contract, f"{source.file.package}.{message.name}")
        }
        found += [
            (source, at, message)
            for at, message in enumerate(source.file.message_type)
            if f"{source.file.package}.{message.name}" not in parts
        ]
    return found


def events_page(contract: Contract) -> str:
    events = events_of(contract)
    contents = [
        (_link(message.name), _owner(source.file), _first(source.said(_MESSAGE, at))) for source, at, message in events
    ]
    blocks = [
        "# Events",
        "Every event with its fields, in the words of the contract. How to follow them, and what can be relied on: "
        "[events.md](../events.md).",
        table(("Event", "Of", ""), contents),
    ]
    inner: dict[str, None] = {}
    for source, at, message in events:
        owner, full_name = _owner(source.file), f"{source.file.package}.{message.name}"
        blocks += [
            f"## {message.name}",
            _TYPE_SAID.sub("", source.said(_MESSAGE, at)),
            f"Subject `tollway.{owner}.{message.name}.<account_id>`, type `{full_name}`.",
            _field_table(contract, source, (_MESSAGE, at), message),
        ]
        waiting = [full_name]
        while waiting:
            for name in _parts(contract, waiting.pop()):
                if name not in inner:
                    inner[name] = None
                    waiting.append(name)
    blocks += ["## What they carry", *(_message(contract, name) for name in inner)]
    used = {
        field.type_name.removeprefix(".")
        for name in [*inner, *(f"{source.file.package}.{message.name}" for source, _, message in events)]
        for field in _descriptor(contract, name).field
    }
    blocks += [_enum(contract, name) for name in contract.enums() if name in used]
    return joined(*blocks)


def _descriptor(contract: Contract, full_name: str) -> DescriptorProto:
    source, at = contract.messages()[full_name]
    return source.file.message_type[at]


def _first(paragraphs: str) -> str:
    return paragraphs.partition(". ")[0].rstrip(".") + "."
