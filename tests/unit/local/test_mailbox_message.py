"""Mails as Mailpit describes them, however they are made."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from local.mailbox import message
from local.mailbox.store import Mail


def _mail(raw: bytes, read: bool = False) -> Mail:
    at = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
    return Mail("a" * 22, at, "bounce@example.com", ["ada@example.com"], read, raw)


_HEADER = st.sampled_from(["From", "To", "Subject", "Date", "Content-Type", "Content-Transfer-Encoding", "Message-ID"])
_LINES = st.lists(st.tuples(_HEADER, st.binary(max_size=40).filter(lambda value: b"\n" not in value)), max_size=6)


@given(_LINES, st.binary(max_size=200))
def test_no_mail_is_so_broken_that_it_cannot_be_shown(lines: list[tuple[str, bytes]], body: bytes) -> None:
    raw = b"".join(name.encode() + b": " + value + b"\r\n" for name, value in lines) + b"\r\n" + body
    mail = _mail(raw)
    assert json.loads(json.dumps(message.summary(mail)))["ID"] == mail.id
    assert json.loads(json.dumps(message.detail(mail)))["Size"] == len(raw)
    message.headers(message.parse(mail))
    message.matches(mail, 'from:x "y z" -w')


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=20))
def test_every_mail_fits_the_empty_search_and_no_mail_fits_a_word_and_its_negation(word: str) -> None:
    mail = _mail(b"Subject: hello\r\n\r\nworld\r\n")
    assert message.matches(mail, "")
    assert not (message.matches(mail, "hello") and message.matches(mail, "-hello"))
    message.matches(mail, word)


def test_one_who_is_only_on_the_envelope_is_shown_as_bcc() -> None:
    summary = message.summary(_mail(b"To: grace@example.com\r\n\r\n"))
    assert [one["Address"] for one in summary["To"]] == ["grace@example.com"]
    assert [one["Address"] for one in summary["Bcc"]] == ["ada@example.com"]
