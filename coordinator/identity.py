"""A small certificate authority: it names this coordinator, and every host."""

import datetime as dt
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from runtime.channel import SERVER_NAME

AUTHORITY_DAYS = 3650
SERVER_DAYS = 397
HOST_DAYS = 90
# Clocks of strangers' machines are not quite ours.
_SKEW = dt.timedelta(minutes=10)


@dataclass(frozen=True, kw_only=True)
class Identity:
    """The authority's and the server's keys and certificates, PEM."""

    authority_pem: bytes
    server_pem: bytes
    server_key_pem: bytes = field(repr=False)
    authority_key: ec.EllipticCurvePrivateKey = field(repr=False)

    def issue_host(self, csr: x509.CertificateSigningRequest, host_id: str, now_ms: int) -> bytes:
        """A certificate for the key in `csr`; every name in it is ours."""
        authority = x509.load_pem_x509_certificate(self.authority_pem)
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = _builder(host_id, authority.subject, now_ms, HOST_DAYS).public_key(csr.public_key())
        certificate = builder.add_extension(usage, critical=True).sign(self.authority_key, hashes.SHA256())
        return certificate.public_bytes(Encoding.PEM)


def create(directory: Path, now_ms: int) -> None:
    """A new authority and its key in `directory`."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name("Usance coordinator's authority")
    certificate = (
        _builder("Usance coordinator's authority", subject, now_ms, AUTHORITY_DAYS)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    write_secret(directory / "ca.key", _key_pem(key))
    (directory / "ca.pem").write_bytes(certificate.public_bytes(Encoding.PEM))


def load(directory: Path, now_ms: int) -> Identity:
    """The authority in `directory`, with a fresh certificate for this run of the server.

    The server's key lives only in memory: clients trust the authority, not one server's key.
    """
    authority_pem = (directory / "ca.pem").read_bytes()
    authority_key = load_pem_private_key((directory / "ca.key").read_bytes(), None)
    if not isinstance(authority_key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{directory / 'ca.key'} is not an elliptic-curve key")
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.load_pem_x509_certificate(authority_pem).subject
    certificate = (
        _builder(SERVER_NAME, issuer, now_ms, SERVER_DAYS)
        .public_key(key.public_key())
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(SERVER_NAME)]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    return Identity(
        authority_pem=authority_pem,
        server_pem=certificate.public_bytes(Encoding.PEM) + authority_pem,
        server_key_pem=_key_pem(key),
        authority_key=authority_key,
    )


def write_secret(path: Path, content: bytes) -> None:
    """Readable by its owner from the first byte on; refuses to replace what is there."""
    path.touch(mode=0o600, exist_ok=False)
    path.write_bytes(content)


def _builder(name: str, issuer: x509.Name, now_ms: int, days: int) -> x509.CertificateBuilder:
    now = dt.datetime.fromtimestamp(now_ms / 1000, dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(issuer)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + dt.timedelta(days=days))
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
