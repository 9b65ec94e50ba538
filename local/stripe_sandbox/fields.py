"""Updates that all nouns share."""

from __future__ import annotations

from typing import Any

from .store import Json


def merged_metadata(current: dict[str, str], given: Any) -> dict[str, str]:
    """Stripe merges metadata by key; an empty value removes its key, an empty string all of them."""
    if given is None:
        return {}
    merged = current | given
    return {key: value for key, value in merged.items() if value != ""}


def apply(obj: Json, params: Json, names: tuple[str, ...]) -> Json:
    """A copy with the given parameters set and the metadata merged."""
    changed = dict(obj)
    for name in names:
        if name in params:
            changed[name] = params[name]
    if "metadata" in params:
        changed["metadata"] = merged_metadata(obj.get("metadata") or {}, params["metadata"])
    return changed
