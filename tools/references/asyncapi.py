"""The AsyncAPI 3 document of the events, from the comments of the contract: docs/reference/asyncapi.yaml."""

from __future__ import annotations

from typing import Any

import yaml
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto

from tools.references.protos import Contract, Source, events_of

_MESSAGE, _FIELD, _ENUM = 4, 2, 5
_DESCRIPTION = " ".join(
    (
        "What became true, told to whoever listens: CloudEvents 1.0 in binary mode on the JetStream stream TOLLWAY.",
        "Attributes are NATS headers; the data is protobuf, whose message each event names.",
        "The schemas here are of the same data in protobuf's JSON, as `tollway events tail --json` shows it: what is",
        "empty is left out, 64-bit numbers are strings.",
        "Delivery is at least once and in no promised order; docs/events.md says what can be relied on.",
    )
)
_HEADERS = {
    "ce-specversion": {"const": "1.0"},
    "ce-id": {"type": "string", "pattern": "^evt_", "description": "The same each time the event is delivered."},
    "Nats-Msg-Id": {"type": "string", "description": "The same as ce-id: the stream drops a second copy."},
    "ce-source": {"type": "string", "description": "Which service tells: `/tollway/billing`."},
    "ce-type": {"type": "string", "description": "The full name of the protobuf message."},
    "ce-subject": {"type": "string", "description": "The account's id."},
    "ce-time": {"type": "string", "format": "date-time", "description": "When it was written."},
    "ce-datacontenttype": {"const": "application/protobuf"},
}
_KINDS = FieldDescriptorProto.Type
_SCALARS: dict[int, dict[str, Any]] = {
    **{kind: {"type": "string"} for kind in (_KINDS.TYPE_STRING, _KINDS.TYPE_BYTES)},
    **{kind: {"type": "integer"} for kind in (_KINDS.TYPE_INT32, _KINDS.TYPE_SINT32, _KINDS.TYPE_UINT32)},
    **{kind: {"type": "string", "format": "int64"} for kind in (_KINDS.TYPE_INT64, _KINDS.TYPE_UINT64)},
    **{kind: {"type": "number"} for kind in (_KINDS.TYPE_DOUBLE, _KINDS.TYPE_FLOAT)},
    _KINDS.TYPE_BOOL: {"type": "boolean"},
}
_WELL_KNOWN = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?s$"},
}


def document(contract: Contract) -> str:
    """YAML. Each event is a channel of its own; whoever subscribes to `tollway.>` hears them all."""
    found = events_of(contract)
    described = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "tollway events",
            "version": "1",
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/protobuf",
        "servers": {
            "local": {"host": "127.0.0.1:14222", "protocol": "nats", "description": "TOLLWAY_NATS_URL in local mode."}
        },
        "channels": {message.name: _channel(source, message) for source, _, message in found},
        "operations": {f"send{message.name}": _operation(message) for _, _, message in found},
        "components": {
            "messages": {message.name: _told(source, at, message) for source, at, message in found},
            "messageTraits": {
                "cloudEvent": {"headers": {"type": "object", "required": sorted(_HEADERS), "properties": _HEADERS}}
            },
            "schemas": _schemas(contract, [f"{source.file.package}.{message.name}" for source, _, message in found]),
        },
    }
    return yaml.dump(described, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=110)


class _Plain(yaml.SafeDumper):
    """Without anchors: a schema that is the same twice is written twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _channel(source: Source, message: DescriptorProto) -> dict[str, Any]:
    owner = source.file.package.split(".")[1]
    return {
        "address": f"tollway.{owner}.{message.name}.{{account_id}}",
        "messages": {message.name: {"$ref": f"#/components/messages/{message.name}"}},
        "parameters": {"account_id": {"description": "Whom it concerns; `all` where it is nobody in particular."}},
    }


def _operation(message: DescriptorProto) -> dict[str, Any]:
    return {
        "action": "send",
        "channel": {"$ref": f"#/channels/{message.name}"},
        "messages": [{"$ref": f"#/channels/{message.name}/messages/{message.name}"}],
    }


def _told(source: Source, at: int, message: DescriptorProto) -> dict[str, Any]:
    said = source.said(_MESSAGE, at)
    return {
        "name": f"{source.file.package}.{message.name}",
        "title": message.name,
        "summary": said.partition(". ")[0].rstrip(".") + ".",
        "description": f"{said}\n\nProtobuf message `{source.file.package}.{message.name}` of {source.file.name}.",
        "traits": [{"$ref": "#/components/messageTraits/cloudEvent"}],
        "payload": {"$ref": f"#/components/schemas/{source.file.package}.{message.name}"},
    }


def _schemas(contract: Contract, waiting: list[str]) -> dict[str, Any]:
    """By full name: the events' messages, and what they are made of."""
    found: dict[str, Any] = {}
    while waiting:
        name = waiting.pop(0)
        if name in found:
            continue
        if name in contract.messages():
            source, at = contract.messages()[name]
            message = source.file.message_type[at]
            said = {"description": text} if (text := source.said(_MESSAGE, at)) else {}
            fields = {
                field.name: _described(_schema(message, field), source.said(_MESSAGE, at, _FIELD, number))
                for number, field in enumerate(message.field)
            }
            found[name] = {"type": "object", **said, "properties": fields}
            for each in (message, *message.nested_type):
                types = (field.type_name.removeprefix(".") for field in each.field)
                waiting += [other for other in types if other in contract.messages() or other in contract.enums()]
        else:
            source, at = contract.enums()[name]
            values = [value.name for value in source.file.enum_type[at].value]
            found[name] = _described({"type": "string", "enum": values}, source.said(_ENUM, at))
    return found


def _described(schema: dict[str, Any], said: str) -> dict[str, Any]:
    return {**schema, "description": said} if said else schema


def _schema(message: DescriptorProto, field: FieldDescriptorProto) -> dict[str, Any]:
    name = field.type_name.removeprefix(".")
    for nested in message.nested_type:
        if nested.options.map_entry and name.endswith(f".{message.name}.{nested.name}"):
            return {"type": "object", "additionalProperties": _schema(nested, nested.field[1])}
    for number, enum in enumerate(message.enum_type):
        if name.endswith(f".{message.name}.{enum.name}"):
            return {"type": "string", "enum": [value.name for value in message.enum_type[number].value]}
    named = _WELL_KNOWN.get(name) or {"$ref": f"#/components/schemas/{name}"}
    told = named if name else _SCALARS[field.type]
    return {"type": "array", "items": told} if field.label == FieldDescriptorProto.LABEL_REPEATED else told
