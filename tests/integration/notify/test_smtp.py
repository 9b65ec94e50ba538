"""The way to the mail server: encryption, passwords, odd addresses."""

from __future__ import annotations

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from email.headerregistry import Address
from email.message import EmailMessage
from pathlib import Path

import pytest
from aiosmtpd.smtp import AuthResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from services.notify.errors import NotAccepted, Refused
from services.notify.smtp import Server, SmtpMailer
from tests.integration.notify.conftest import Inboxes, serving


def mail(to: str) -> EmailMessage:
    message = EmailMessage()
    message["From"] = "billing@example.com"
    message["To"] = Address("", *to.split("@"))
    message["Subject"] = "Hello"
    message.set_content("Hello")
    return message


async def deliver(server: Server, to: str) -> None:
    async def before_content() -> None:
        """What the service does here is not under test."""

    mailer = SmtpMailer(server)
    try:
        await mailer.deliver(mail(to), to, before_content)
    finally:
        await mailer.close()


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's context for 127.0.0.1, whose certificate this process trusts as it would an authority's."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mail server of a test")])
    now = datetime.now(UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "server.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


async def test_a_password_is_given_after_starttls_and_a_wrong_one_is_not_the_mails_fault(
    tls: ssl.SSLContext, smtp_port: int
) -> None:
    def check(server: object, session: object, envelope: object, mechanism: str, data: object) -> AuthResult:
        given = (data.login, data.password)  # type: ignore[attr-defined]
        return AuthResult(success=given == (b"user", b"p/w"), handled=False)

    catcher = Inboxes()
    with serving(catcher, smtp_port, tls_context=tls, require_starttls=True, authenticator=check, auth_required=True):
        right = Server.of(f"smtp://user:p%2Fw@127.0.0.1:{smtp_port}")
        await deliver(right, "ada@example.com")
        assert len(catcher.mails) == 1
        wrong = Server.of(f"smtp://user:wrong@127.0.0.1:{smtp_port}")
        with pytest.raises(NotAccepted, match="535"):
            await deliver(wrong, "ada@example.com")
        none = Server.of(f"smtp://127.0.0.1:{smtp_port}")
        with pytest.raises(NotAccepted, match="530"):
            await deliver(none, "ada@example.com")


async def test_smtps_is_encrypted_from_the_first_byte(tls: ssl.SSLContext, smtp_port: int) -> None:
    catcher = Inboxes()
    with serving(catcher, smtp_port, ssl_context=tls):
        server = Server.of(f"smtps://127.0.0.1:{smtp_port}")
        await deliver(server, "ada@example.com")
    assert len(catcher.mails) == 1


async def test_a_server_whose_certificate_nobody_vouches_for_gets_nothing(
    tls: ssl.SSLContext, smtp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    catcher = Inboxes()
    with serving(catcher, smtp_port, ssl_context=tls):
        monkeypatch.delenv("SSL_CERT_FILE")
        server = Server.of(f"smtps://127.0.0.1:{smtp_port}")
        with pytest.raises(NotAccepted):
            await deliver(server, "ada@example.com")
    assert catcher.mails == []


async def test_an_international_address_goes_out_where_the_server_takes_it(smtp_port: int) -> None:
    catcher = Inboxes()
    server = Server.of(f"smtp://127.0.0.1:{smtp_port}")
    with serving(catcher, smtp_port):
        await deliver(server, "用户@例え.jp")
    assert catcher.envelopes[0].rcpt_tos == ["用户@例え.jp"]
    with (
        serving(catcher, smtp_port, smtputf8=False),
        pytest.raises(Refused, match="SMTPUTF8"),
    ):
        await deliver(server, "用户@例え.jp")
