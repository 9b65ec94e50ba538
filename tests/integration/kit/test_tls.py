"""gRPC over TLS: who shows a certificate, who needs none, and what does not start."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from google.protobuf.wrappers_pb2 import StringValue

from services.kit import errors
from services.kit.config import ConfigurationError, Settings
from services.kit.rpc import Server
from tests.integration.kit.probe import LOCAL, echo, method, serving


class Authority:
    """A certificate authority for a test; it writes PEM files."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.pem = self._write(f"{name}.pem", self._sign(self._name, self._key, authority=True))

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, authority: bool) -> bytes:
        now = datetime.now(UTC)
        names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM)

    def _write(self, name: str, content: bytes) -> Path:
        (self._folder / name).write_bytes(content)
        return self._folder / name

    def issue(self, name: str) -> tuple[Path, Path]:
        """The paths of a certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        certificate = self._write(f"{name}.crt", self._sign(subject, key, authority=False))
        return certificate, self._write(f"{name}.key", pem)


async def test_with_an_authority_both_sides_show_certificates(tmp_path: Path) -> None:
    ours, foreign = Authority(tmp_path, "ours"), Authority(tmp_path, "foreign")
    server_cert, server_key = ours.issue("server")
    client_cert, client_key = ours.issue("client")
    intruder_cert, intruder_key = foreign.issue("intruder")
    server = Settings(tls_ca=ours.pem, tls_cert=server_cert, tls_key=server_key)
    client = Settings(tls_ca=ours.pem, tls_cert=client_cert, tls_key=client_key)
    for refused in (
        Settings(local=True, tls_ca=ours.pem),  # no certificate
        Settings(tls_ca=ours.pem, tls_cert=intruder_cert, tls_key=intruder_key),
        Settings(tls_ca=foreign.pem, tls_cert=client_cert, tls_key=client_key),  # does not trust the server
        LOCAL,  # plaintext
    ):
        async with serving(echo, server, refused) as link:
            with pytest.raises(errors.Unavailable):
                await link.call(method(link), StringValue(value="x"))
    async with serving(echo, server, client) as link:
        assert (await link.call(method(link), StringValue(value="x"))).value == "x"


async def test_authorities_without_a_certificate_of_its_own_do_not_start_a_server(tmp_path: Path) -> None:
    server = Server(Settings(rpc_token="t", tls_ca=Authority(tmp_path, "ours").pem), 0)
    with pytest.raises(ConfigurationError, match="TOLLWAY_TLS_CERT"):
        await server.start()


async def test_a_server_with_a_certificate_and_a_token_needs_no_certificate_of_its_callers(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ours")
    certificate, key = authority.issue("server")
    client = Settings(rpc_token="t", tls_ca=authority.pem)
    async with serving(echo, Settings(rpc_token="t", tls_cert=certificate, tls_key=key), client) as link:
        assert (await link.call(method(link), StringValue(value="x"))).value == "x"
