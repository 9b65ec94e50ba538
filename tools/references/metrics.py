"""The page on metrics: names and labels from the calls in the code, meanings from here."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from pathlib import Path

from tools.references import Undescribed
from tools.references.markdown import code, joined, table

_KINDS = {"count": "counter", "gauge": "gauge", "observe": "histogram"}
_GIVEN = {"name", "amount", "read", "seconds"}  # parameters of the calls; every other keyword is a label
_STATES = "{state}"  # the only part of a name that the code fills in

MEANINGS = {
    "tollway_billing_alerts_total": "Something that a person should look at: see the alerts in operating.md.",
    "tollway_drift_total": "Fields of accounts that differed from Stripe's when a reconciliation looked.",
    "tollway_events_consumed_total": "Events of the stream that a consumer has dealt with.",
    "tollway_events_dead_total": "Events given up after their last try; they lie on the stream TOLLWAY_DEAD.",
    "tollway_http_seconds": "Requests to the gateway, by the route's pattern.",
    "tollway_imports_total": "Customers that an import looked at, by what became of them.",
    "tollway_late_usage_total": "Totals that arrived after Stripe had closed the invoice of their period.",
    "tollway_message_tries_total": "Tries to hand a mail to the mail server.",
    "tollway_message_try_seconds": "How long a try took.",
    "tollway_messages_noted_total": "Mails that an event called for.",
    "tollway_messages_{state}": "Mails in that state now.",
    "tollway_missed_events_total": "Events that Stripe has and that never arrived, found by the sweep.",
    "tollway_outbox_pending": "Events written and not published yet; 256 means 256 or more.",
    "tollway_outbox_published_total": "Events that the stream took.",
    "tollway_quota_batches_total": "Transactions of the decision lane, by how many decisions they held.",
    "tollway_quota_decisions_total": "Decisions, by what came out.",
    "tollway_quota_ext_authz_total": "Envoy's questions (external authorization), by the status told.",
    "tollway_quota_keys_from_memory_total": "Keys recognised from memory while the database was away.",
    "tollway_quota_lane_connects_total": "Connections that the lane made.",
    "tollway_quota_lane_lost_total": "Connections that the lane lost.",
    "tollway_quota_queue_full_total": "Uses turned away because the queue was full.",
    "tollway_quota_queue_length": "Decisions that wait.",
    "tollway_quota_rate_limit_total": "Envoy's questions (rate limit service), by the code told.",
    "tollway_quota_stale_total": "Reads of the lane that were outdated and done again.",
    "tollway_quota_statements_total": "Statements of the lane.",
    "tollway_quota_unverified_total": "Uses let through uncounted by `on_store_down: allow`; each is in the log.",
    "tollway_refund_delays_total": "Refunds that could not go on yet, by the step that waits.",
    "tollway_rpc_seconds": "gRPC calls served, by method and status code.",
    "tollway_sign_in_mails_total": "Mails with a link to sign in, by whether the mail server took them.",
    "tollway_sign_ins_total": "Sign-ins to the billing page, by a mailed link or an API key.",
    "tollway_stripe_seconds": "Calls to Stripe.",
    "tollway_swept_subscriptions_total": "Subscriptions at Stripe that the sweep compared with those held here.",
    "tollway_sync_failures_total": "Reads of Stripe that failed and will be tried again.",
    "tollway_webhooks_total": "Webhooks stored, by type and by what became of them at once.",
}


@dataclass
class Metric:
    kind: str
    labels: dict[str, None] = field(default_factory=dict)
    places: dict[str, None] = field(default_factory=dict)


def page(root: Path) -> str:
    """Raises Undescribed for a metric without a meaning, or a meaning without its metric."""
    found = measured(root)
    if new := ", ".join(sorted(found.keys() - MEANINGS.keys())):
        raise Undescribed(f"counted and not described: {new}: say what they mean in tools/references/metrics.py")
    if gone := ", ".join(sorted(MEANINGS.keys() - found.keys())):
        raise Undescribed(f"described in tools/references/metrics.py and counted nowhere: {gone}")
    rows = [
        (code(name), metric.kind, ", ".join(metric.labels), ", ".join(metric.places), MEANINGS[name])
        for name, metric in sorted(found.items())
    ]
    return joined(
        "# Metrics",
        "Prometheus, at `/metrics`: billing on port 7201, quota on 7202, notify on 7203 "
        "(`TOLLWAY_BILLING_METRICS_PORT`, …), the gateway on its own port. A process adds Python's usual ones "
        "(`process_…`, `python_…`). Histograms end in `_bucket`, `_count` and `_sum`. A counter appears with its first "
        "event. What to alert on: [operating.md](../operating.md#metrics-and-alerts).",
        table(("Metric", "Kind", "Labels", "In", "Meaning"), rows),
    )


def measured(root: Path) -> dict[str, Metric]:
    """Every metric that a call names, with its labels and where it is counted."""
    found: dict[str, Metric] = {}
    for path in sorted([*(root / "services").rglob("*.py"), *(root / "gateway").rglob("*.py")]):
        if path.name == "telemetry.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            kind = _KINDS.get(node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", ""))
            name = _name(node.args[0])
            if kind is None or not name.startswith("tollway_"):
                continue
            metric = found.setdefault(name, Metric(kind))
            metric.labels.update(
                dict.fromkeys(each.arg for each in node.keywords if each.arg and each.arg not in _GIVEN)
            )
            metric.places[_place(path.relative_to(root))] = None
    return found


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else _STATES for part in node.values)
    return ""


def _place(path: Path) -> str:
    if path.parts[0] == "gateway":
        return "gateway"
    return {"rpc.py": "every service", "outbox.py": "billing, quota", "inbox.py": "every service"}.get(
        path.name, path.parts[1]
    )
