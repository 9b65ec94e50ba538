"""Claims about API keys: DESIGN §4 "Keys"."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.billing.catalog import load_catalog
from services.billing.domain.api_key import hash_key, kind_of, new_key, refuse_another, sharing_allowance
from services.billing.errors import ApiKeyMalformed, KeyRefused

PREFIXES = {"sk_live_": "live", "mk_test_": "test"}


@given(st.integers(0, 2**160 - 1), st.sampled_from(list(PREFIXES)))
def test_a_new_key_is_of_its_prefixs_kind(random: int, prefix: str) -> None:
    key = new_key(prefix, random)
    assert kind_of(key.secret, PREFIXES) == PREFIXES[prefix]
    assert key.hash == hash_key(key.secret)


@given(st.integers(0, 2**160 - 1), st.data())
def test_one_wrong_character_is_always_found(random: int, data: st.DataObject) -> None:
    secret = new_key("sk_live_", random).secret
    at = data.draw(st.integers(len("sk_live_"), len(secret) - 1))
    other = data.draw(st.characters(codec="utf-8").filter(lambda c: c != secret[at]))
    with pytest.raises(ApiKeyMalformed):
        kind_of(secret[:at] + other + secret[at + 1 :], PREFIXES)


@given(st.text(max_size=80))
def test_any_text_is_refused_without_another_error(text: str) -> None:
    with pytest.raises(ApiKeyMalformed):
        kind_of(text, PREFIXES)


def test_what_is_shown_does_not_tell_the_key() -> None:
    key = new_key("sk_live_")
    assert len(set(key.shown) & set("…")) == 1
    assert len(key.shown) < len(key.secret) / 2


def test_the_refusal_does_not_repeat_the_key() -> None:
    with pytest.raises(ApiKeyMalformed) as caught:
        kind_of("sk_live_secretsecretsecret", PREFIXES)
    assert "secret" not in str(caught.value)


CATALOG = load_catalog(Path("tests/catalogs/downloads.yaml"))


@given(st.sampled_from(list(CATALOG.tiers)), st.sampled_from(list(CATALOG.key_kinds)), st.integers(0, 10))
def test_another_key_is_allowed_exactly_where_gate_and_allowance_are_open(tier: str, kind: str, held: int) -> None:
    asked = CATALOG.key_kinds[kind]
    limit = CATALOG.allowance(tier, asked.allowance) if asked.allowance else None
    allowed = (asked.gate is None or CATALOG.gate_open(tier, asked.gate)) and (limit is None or held < limit)
    if allowed:
        refuse_another(CATALOG, kind, tier, held, "https://pay.example")
        return
    with pytest.raises(KeyRefused) as refused:
        refuse_another(CATALOG, kind, tier, held, "https://pay.example")
    assert refused.value.error_reason.isupper()
    assert refused.value.metadata["http_status"] == "402"


def test_kinds_of_one_allowance_are_counted_together() -> None:
    assert sharing_allowance(CATALOG, "svc") == ["svc"]
    assert sharing_allowance(CATALOG, "live") == []
    both = CATALOG.model_copy(
        update={"key_kinds": CATALOG.key_kinds | {"bot": CATALOG.key_kinds["svc"].model_copy(update={"prefix": "b_"})}}
    )
    assert sharing_allowance(both, "bot") == ["svc", "bot"]
