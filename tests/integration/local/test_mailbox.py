"""The mailbox as a process: what SMTP brings, Mailpit's JSON gives back."""

from __future__ import annotations

import smtplib
from email.message import EmailMessage

import httpx
import pytest

from tests.infra.processes import Mailbox


def _send(mailbox: Mailbox, subject: str = "Your receipt", to: str = "ada@example.com") -> None:
    mail = EmailMessage()
    mail["From"] = "Acme Ünlimited <billing@example.com>"
    mail["To"] = f"Ada Lovelace <{to}>"
    mail["Subject"] = subject
    mail["Message-ID"] = "<receipt-1@example.com>"
    mail["Date"] = "Sun, 22 Nov 2026 10:00:00 +0100"
    mail["List-Unsubscribe"] = "<mailto:off@example.com>"
    mail.set_content("You paid 29 €.\n")
    mail.add_alternative("<h1>You paid 29 €</h1><script>alert(1)</script>", subtype="html")
    mail.add_attachment(b"%PDF-1.4", maintype="application", subtype="pdf", filename="invoice é.pdf")
    with smtplib.SMTP("127.0.0.1", mailbox.smtp_port) as client:
        client.send_message(mail, to_addrs=[to, "hidden@example.com"])


def test_a_caught_mail_reads_back_in_mailpits_shape(mailbox: Mailbox) -> None:
    _send(mailbox)
    listing = httpx.get(f"{mailbox.url}/api/v1/messages").json()
    assert (listing["total"], listing["unread"], listing["count"]) == (1, 1, 1)
    summary = listing["messages"][0]
    assert summary["From"] == {"Name": "Acme Ünlimited", "Address": "billing@example.com"}
    assert summary["To"] == [{"Name": "Ada Lovelace", "Address": "ada@example.com"}]
    assert summary["Bcc"] == [{"Name": "", "Address": "hidden@example.com"}]
    assert summary["Subject"] == "Your receipt"
    assert summary["MessageID"] == "receipt-1@example.com"
    assert summary["Attachments"] == 1
    assert summary["Snippet"] == "You paid 29 €."

    detail = httpx.get(f"{mailbox.url}/api/v1/message/{summary['ID']}").json()
    assert detail["Text"].strip() == "You paid 29 €."
    assert detail["HTML"].startswith("<h1>You paid 29 €</h1>")
    assert detail["Date"] == "2026-11-22T09:00:00.000Z"
    assert detail["Attachments"][0] | {"Checksums": None} == {
        "PartID": "1",
        "FileName": "invoice é.pdf",
        "ContentType": "application/pdf",
        "ContentID": "",
        "Size": 8,
        "Checksums": None,
    }
    part = httpx.get(f"{mailbox.url}/api/v1/message/{summary['ID']}/part/1")
    assert part.content == b"%PDF-1.4"
    assert part.headers["content-disposition"].startswith("attachment")
    headers = httpx.get(f"{mailbox.url}/api/v1/message/latest/headers").json()
    assert headers["List-Unsubscribe"] == ["<mailto:off@example.com>"]
    assert httpx.get(f"{mailbox.url}/api/v1/messages").json()["unread"] == 0


def test_a_mails_html_can_run_no_script(mailbox: Mailbox) -> None:
    _send(mailbox)
    identifier = mailbox.messages()[0]["ID"]
    view = httpx.get(f"{mailbox.url}/view/{identifier}.html")
    policy = view.headers["content-security-policy"]
    assert policy.startswith("sandbox")
    assert "allow-scripts" not in policy
    page = httpx.get(f"{mailbox.url}/message/{identifier}").text
    assert '<iframe sandbox="allow-popups allow-popups-to-escape-sandbox"' in page
    assert "alert(1)" not in page


def test_markup_in_a_subject_is_shown_as_text(mailbox: Mailbox) -> None:
    _send(mailbox, subject="<img src=x onerror=alert(1)> {{7*7}}")
    page = httpx.get(mailbox.url).text
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt; {{7*7}}" in page


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", 2),
        ("to:grace", 1),
        ('subject:"second receipt"', 1),
        ("receipt -subject:second", 1),
        ("message-id:receipt-1", 2),
        ("is:unread", 2),
        ("29 nothing-like-it", 0),
    ],
)
def test_search_finds_what_mailpits_words_ask_for(mailbox: Mailbox, query: str, found: int) -> None:
    _send(mailbox)
    _send(mailbox, subject="A second receipt", to="grace@example.com")
    assert len(mailbox.messages(query)) == found


def test_an_accepted_mail_outlives_a_kill(mailbox: Mailbox) -> None:
    _send(mailbox)
    mailbox.kill()
    mailbox.start()
    assert [mail["Subject"] for mail in mailbox.messages()] == ["Your receipt"]


@pytest.mark.parametrize("stage", ["data", "rcpt"])
@pytest.mark.parametrize("code", [451, 550])
def test_it_refuses_as_many_mails_as_it_was_told_to(mailbox: Mailbox, code: int, stage: str) -> None:
    mailbox.refuse(code, 1 if stage == "data" else 2, stage)  # it counts mails, or recipients: here two
    with pytest.raises(smtplib.SMTPException) as refused:
        _send(mailbox)
    assert str(code) in str(refused.value)
    assert mailbox.messages() == []
    _send(mailbox)
    assert len(mailbox.messages()) == 1


def test_a_wrong_knob_is_refused_with_the_fields_name(mailbox: Mailbox) -> None:
    answer = httpx.put(f"{mailbox.url}/_mailbox/faults", json={"reject": 250, "next": 1})
    assert answer.status_code == 422
    assert answer.text.startswith("reject:")


def test_a_mail_that_breaks_every_rule_is_kept_and_shown(mailbox: Mailbox) -> None:
    raw = b"From: <<>>\r\nTo: @@\r\nContent-Type: multipart/mixed; charset=nonsense\r\nDate: no\r\n\r\n\xff\xfe\r\n"
    with smtplib.SMTP("127.0.0.1", mailbox.smtp_port) as client:
        client.sendmail("a@example.com", ["b@example.com"], raw)
    listing = httpx.get(f"{mailbox.url}/api/v1/messages").json()["messages"]
    assert listing[0]["Bcc"] == [{"Name": "", "Address": "b@example.com"}]
    for path in ("/", f"/message/{listing[0]['ID']}", f"/api/v1/message/{listing[0]['ID']}"):
        assert httpx.get(mailbox.url + path).status_code == 200


def test_delete_removes_the_named_mails_and_without_names_all(mailbox: Mailbox) -> None:
    for subject in ("one", "two", "three"):
        _send(mailbox, subject=subject)
    newest = mailbox.messages()[0]
    httpx.request("DELETE", f"{mailbox.url}/api/v1/messages", json={"IDs": [newest["ID"]]}).raise_for_status()
    assert [mail["Subject"] for mail in mailbox.messages()] == ["two", "one"]
    mailbox.clear()
    assert mailbox.messages() == []


def test_a_page_under_another_name_cannot_read_the_mails(mailbox: Mailbox) -> None:
    answer = httpx.get(f"{mailbox.url}/api/v1/messages", headers={"Host": "evil.example"})
    assert answer.status_code == 400
