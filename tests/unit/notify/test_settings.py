"""Which mail server, and under which protection."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from services.notify.settings import NotifySettings
from services.notify.smtp import Server

DSN = "postgresql+asyncpg://u:p@127.0.0.1/x"


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("smtp://127.0.0.1:1025", Server("127.0.0.1", 1025, None, None, tls=False, start_tls=False)),
        ("smtp://mail.example", Server("mail.example", 25, None, None, tls=False, start_tls=None)),
        ("smtp://u%40x:p%2Fw@mail.example", Server("mail.example", 587, "u@x", "p/w", tls=False, start_tls=True)),
        ("smtps://u:p@mail.example", Server("mail.example", 465, "u", "p", tls=True, start_tls=False)),
    ],
)
def test_a_password_crosses_a_network_only_encrypted(url: str, server: Server) -> None:
    assert Server.of(url) == server


def test_outside_local_mode_a_sender_is_required() -> None:
    with pytest.raises(ValueError, match="TOLLWAY_MAIL_FROM"):
        NotifySettings(notify_dsn=DSN, rpc_token="t")
    assert NotifySettings(notify_dsn=DSN, local=True).sender == "billing@localhost"


@pytest.mark.parametrize(
    "wrong",
    [
        {"mail_from": "Billing <billing@example.com>"},
        {"mail_from": "a@b.example\nBcc: x@y.example"},
        {"smtp_url": "http://mail.example"},
        {"smtp_url": "smtp://mail.example:port"},
        {"mail_locale": "klingon"},
    ],
)
def test_a_wrong_setting_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        NotifySettings.model_validate({"notify_dsn": DSN, "local": True, **wrong})
