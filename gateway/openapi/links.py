"""Which answers hold what other calls ask for (OpenAPI's links): for readers, and for tools that follow them."""

from __future__ import annotations

from typing import Any

# (operation, status) → (link, operation that it leads to, its parameters from the answer or the request)
_BODY = "$response.body#/"
_SLUG = {"slug": "$request.path.slug"}
_ORG = {"slug": f"{_BODY}orgs/0/slug"}
LINKS: dict[tuple[str, str], list[tuple[str, str, dict[str, str]]]] = {
    ("sign_up", "201"): [
        ("Status", "read_status", {"slug": f"{_BODY}account/slug"}),
        ("Keys", "list_keys", {"slug": f"{_BODY}account/slug"}),
    ],
    ("list_orgs", "200"): [
        ("Status", "read_status", _ORG),
        ("Members", "list_members", _ORG),
        ("Keys", "list_keys", _ORG),
        ("IssueKey", "issue_key", _ORG),
        ("AuditLog", "read_audit_log", _ORG),
        ("Preview", "preview_change", _ORG),
        ("Refund", "preview_refund", _ORG),
    ],
    ("issue_key", "201"): [
        ("Rotate", "rotate_key", _SLUG | {"key_id": f"{_BODY}id"}),
        ("Revoke", "revoke_key", _SLUG | {"key_id": f"{_BODY}id"}),
    ],
    ("list_keys", "200"): [
        ("Rotate", "rotate_key", _SLUG | {"key_id": f"{_BODY}keys/0/id"}),
        ("Revoke", "revoke_key", _SLUG | {"key_id": f"{_BODY}keys/0/id"}),
        ("NextPage", "list_keys", _SLUG | {"page_token": f"{_BODY}next_page_token"}),
    ],
    ("rotate_key", "201"): [("Revoke", "revoke_key", _SLUG | {"key_id": f"{_BODY}id"})],
    ("read_audit_log", "200"): [
        ("NextPage", "read_audit_log", _SLUG | {"page_token": f"{_BODY}next_page_token"}),
    ],
    ("list_usage", "200"): [("SetCap", "set_cap", {"meter": f"{_BODY}meters/0/meter"})],
    ("start_download", "200"): [("Release", "release_lease", {"request_id": f"{_BODY}requestId"})],
    ("search_accounts", "200"): [
        ("Explain", "explain_account", {"account_id": f"{_BODY}accounts/0/id"}),
        ("Override", "set_override", {"account_id": f"{_BODY}accounts/0/id"}),
        ("NextPage", "search_accounts", {"page_token": f"{_BODY}next_page_token"}),
    ],
    ("list_stripe_events", "200"): [
        ("Show", "show_stripe_event", {"event_id": f"{_BODY}events/0/id"}),
        ("Replay", "replay_stripe_event", {"event_id": f"{_BODY}events/0/id"}),
    ],
    ("list_messages", "200"): [
        ("Show", "show_message", {"message_id": f"{_BODY}messages/0/id"}),
        ("Resend", "resend_message", {"message_id": f"{_BODY}messages/0/id"}),
        ("NextPage", "list_messages", {"page_token": f"{_BODY}next_page_token"}),
    ],
}


def of(operation_id: str, status: str) -> dict[str, Any]:
    """The links of one answer."""
    found = LINKS.get((operation_id, status), ())
    return {name: {"operationId": target, "parameters": parameters} for name, target, parameters in found}
