"""Claims about redirects: only allowed origins, in every disguise (DESIGN §12)."""

from __future__ import annotations

import pytest

from services.billing.domain.redirect import check_redirect
from services.billing.errors import RedirectNotAllowed

ALLOWED = {"https://app.example.com", "http://127.0.0.1:8080"}


@pytest.mark.parametrize(
    "url",
    [
        "https://app.example.com",
        "https://app.example.com/",
        "https://app.example.com/done?session={CHECKOUT_SESSION_ID}",
        "https://APP.example.com/done#top",
        "http://127.0.0.1:8080/checkout/success",
    ],
)
def test_an_allowed_origin_passes(url: str) -> None:
    assert check_redirect(url, "success_url", ALLOWED) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/done",
        "//app.example.com/done",
        "https:app.example.com",
        "https:///app.example.com",
        "http://app.example.com/",
        "https://app.example.com:8443/",
        "https://app.example.com.evil.example/",
        "https://evil.example/https://app.example.com/",
        "https://app.example.com@evil.example/",
        "https://evil.example\\@app.example.com/",
        "https://app.example.com\\.evil.example/",
        "https://user:pass@app.example.com/",
        "javascript:alert(1)//https://app.example.com/",
        "data:text/html,hi",
        "https://app.example.com/\r\nSet-Cookie: a=b",
        "https://app.example.com/\tx",
        " https://app.example.com/",
        "https://app.example.com/ä",
        "https://app.example.com%2eevil.example/",
        "https://app.example.com:99999/",
        "https://[::1/",
        "https://app.example.com/" + "a" * 3000,
    ],
)
def test_every_disguise_is_refused_by_field(url: str) -> None:
    with pytest.raises(RedirectNotAllowed) as caught:
        check_redirect(url, "cancel_url", ALLOWED)
    assert caught.value.field == "cancel_url"
