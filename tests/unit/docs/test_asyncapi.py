"""The AsyncAPI document says what is really on the wire."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from services.kit.outbox import Envelope
from tollway.billing.v1 import events_pb2 as billing
from tollway.quota.v1 import events_pb2 as quota

DOCUMENT: dict[str, Any] = yaml.safe_load(Path("docs/reference/asyncapi.yaml").read_text())


def schema(reference: str) -> dict[str, Any]:
    return {"$ref": reference, "components": DOCUMENT["components"]}


def test_every_reference_resolves_and_every_schema_is_used() -> None:
    text = Path("docs/reference/asyncapi.yaml").read_text()
    references = set(re.findall(r"'?#(/[\w./]+)'?", text))
    assert references
    for reference in references:
        found: Any = DOCUMENT
        for part in reference.removeprefix("/").split("/"):
            found = found[part]
    used = {reference.rsplit("/", 1)[1] for reference in references if reference.startswith("/components/schemas/")}
    assert used == set(DOCUMENT["components"]["schemas"])


def test_every_event_of_docs_events_has_a_channel_and_an_operation() -> None:
    listed = set(re.findall(r"^\| `([A-Z]\w+)` \|", Path("docs/events.md").read_text(), re.MULTILINE))
    assert listed
    assert listed <= set(DOCUMENT["channels"])
    assert {operation["channel"]["$ref"] for operation in DOCUMENT["operations"].values()} == {
        f"#/channels/{name}" for name in DOCUMENT["channels"]
    }


@pytest.mark.parametrize(
    "event",
    [
        billing.TierChanged(account_id="acct_1", version=2, previous_tier="free", tier="pro", status="active"),
        billing.InvoicePaymentFailed(
            invoice=billing.Invoice(id="in_1", amount_due=2900), attempt_count=1, action_required=True
        ),
        quota.UsageThresholdReached(account_id="acct_1", meters=["messages"], percent=80, used=2**60, limit=2**61),
    ],
    ids=lambda event: event.DESCRIPTOR.name,
)
def test_an_event_as_it_is_sent_is_what_the_document_says(event: Message) -> None:
    event_name, full_name = event.DESCRIPTOR.name, event.DESCRIPTOR.full_name
    message = DOCUMENT["components"]["messages"][event_name]
    assert message["name"] == full_name
    data = MessageToDict(event, preserving_proto_field_name=True)
    jsonschema_rs.Draft7Validator(schema(message["payload"]["$ref"])).validate(data)
    assert data.keys() <= DOCUMENT["components"]["schemas"][full_name]["properties"].keys()


def test_the_headers_are_those_that_the_outbox_sends() -> None:
    sent = Envelope.of(billing.TierChanged(account_id="acct_1"), "acct_1")
    headers = DOCUMENT["components"]["messageTraits"]["cloudEvent"]["headers"]
    jsonschema_rs.Draft7Validator({**headers, "additionalProperties": False}).validate(sent.headers())
    address = DOCUMENT["channels"]["TierChanged"]["address"]
    assert sent.subject == address.format(account_id="acct_1")
