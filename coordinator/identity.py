"""A small certificate authority: it names this coordinator, and every host.

`ca.pem` and `ca.key` are the authority. While one follows another, `ca-next.pem` and `ca-next.key` are the
one to come: hosts get certificates of it and are told to trust both, and this coordinator still shows itself
by the old one, which everybody knows.
"""

import datetime as dt
import errno
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
# To agents that do not renew their certificates.
HOST_DAYS = 90
# Clocks of strangers' machines are not quite ours.
_SKEW = dt.timedelta(minutes=10)
_PEM, _KEY, _NEXT_PEM, _NEXT_KEY = "ca.pem", "ca.key", "ca-next.pem", "ca-next.key"
# What people and machines are to trust, while there are two.
BOTH_PEM = "authorities.pem"


class RotationError(ValueError):
    """It can't be done now; the message says what would have to come first."""


@dataclass(frozen=True, kw_only=True)
class Issued:
    """A host's certificate, and what is noted of it."""

    pem: bytes
    serial: str
    authority_digest: bytes
    expires_ms: int


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What everybody is to trust, PEM; the server's key and certificate, PEM; and who signs for hosts."""

    authority_pem: bytes
    server_pem: bytes
    server_key_pem: bytes = field(repr=False)
    issuer: x509.Certificate
    issuer_key: ec.EllipticCurvePrivateKey = field(repr=False)

    def issue_host(
        self, csr: x509.CertificateSigningRequest, host_id: str, now_ms: int, days: int = HOST_DAYS
    ) -> Issued:
        """A certificate for the key in `csr`; every name in it is ours."""
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = _builder(host_id, self.issuer.subject, now_ms, days).public_key(csr.public_key())
        certificate = builder.add_extension(usage, critical=True).sign(self.issuer_key, hashes.SHA256())
        return Issued(
            pem=certificate.public_bytes(Encoding.PEM),
            serial=f"{certificate.serial_number:x}",
            authority_digest=digest_of(self.issuer),
            expires_ms=int(certificate.not_valid_after_utc.timestamp()) * 1_000,
        )


def must_be_none(directory: Path) -> None:
    """Raises FileExistsError where there is an authority already, or half of one."""
    for path in (directory / _KEY, directory / _PEM):
        if path.exists():
            raise FileExistsError(errno.EEXIST, "a coordinator was made here already", str(path))


def create(directory: Path, now_ms: int) -> None:
    """A new authority and its key in `directory`."""
    _create(directory, _PEM, _KEY, "Usance coordinator's authority", now_ms)


def load(directory: Path, now_ms: int) -> Identity:
    """The authority in `directory`, with a fresh certificate for this run of the server.

    The server's key lives only in memory: clients trust the authority, not one server's key.
    """
    _settle(directory)
    authority_pem = (directory / _PEM).read_bytes()
    authority, authority_key = x509.load_pem_x509_certificate(authority_pem), _load_key(directory / _KEY)
    issuer, issuer_key, trusted_pem = authority, authority_key, authority_pem
    if is_rotating(directory):
        next_pem = (directory / _NEXT_PEM).read_bytes()
        issuer, issuer_key = x509.load_pem_x509_certificate(next_pem), _load_key(directory / _NEXT_KEY)
        trusted_pem += next_pem
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _builder(SERVER_NAME, authority.subject, now_ms, SERVER_DAYS)
        .public_key(key.public_key())
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(SERVER_NAME)]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    return Identity(
        authority_pem=trusted_pem,
        server_pem=certificate.public_bytes(Encoding.PEM) + authority_pem,
        server_key_pem=_key_pem(key),
        issuer=issuer,
        issuer_key=issuer_key,
    )


def days_left(directory: Path, now_ms: int) -> int:
    """Of the authority in `directory`. Raises ValueError or TypeError where it can't sign."""
    authority = x509.load_pem_x509_certificate((directory / _PEM).read_bytes())
    if _load_key(directory / _KEY).public_key() != authority.public_key():
        raise ValueError(f"{_KEY} is not the key of {_PEM}")
    left = authority.not_valid_after_utc - dt.datetime.fromtimestamp(now_ms / 1000, dt.UTC)
    return left.days


def ends_ms(who: Identity) -> dict[str, int]:
    """When the authority that people know ends, and when this run's certificate of the server."""
    server, authority, *_ = x509.load_pem_x509_certificates(who.server_pem)
    return {
        name: int(certificate.not_valid_after_utc.timestamp()) * 1_000
        for name, certificate in (("server", server), ("authority", authority))
    }


def is_rotating(directory: Path) -> bool:
    return (directory / _NEXT_PEM).exists()


def begin_rotation(directory: Path, now_ms: int) -> Path:
    """A second authority beside the one in `directory`; the file with both."""
    _settle(directory)
    if is_rotating(directory):
        raise RotationError("a rotation has begun already; next: rotate-ca finish")
    # Of a beginning that was broken off; nobody has seen it.
    (directory / _NEXT_KEY).unlink(missing_ok=True)
    # The two are told apart by their names where a certificate's signer is looked for.
    _create(directory, _NEXT_PEM, _NEXT_KEY, f"Usance coordinator's authority {now_ms}", now_ms)
    both = directory / BOTH_PEM
    both.write_bytes((directory / _PEM).read_bytes() + (directory / _NEXT_PEM).read_bytes())
    return both


def next_digest(directory: Path) -> bytes:
    """Of the authority that is to follow."""
    _settle(directory)
    if not is_rotating(directory):
        raise RotationError("no rotation has begun; first: rotate-ca begin")
    return digest_of(x509.load_pem_x509_certificate((directory / _NEXT_PEM).read_bytes()))


def finish_rotation(directory: Path) -> None:
    """From the next start on only the new authority is trusted, and the old one's key is gone."""
    (directory / _NEXT_KEY).replace(directory / _KEY)
    _settle(directory)


def digest_of(authority: x509.Certificate) -> bytes:
    return authority.fingerprint(hashes.SHA256())


def write_secret(path: Path, content: bytes) -> None:
    """Readable by its owner from the first byte on; refuses to replace what is there."""
    path.touch(mode=0o600, exist_ok=False)
    path.write_bytes(content)


def _settle(directory: Path) -> None:
    """The key goes first: where it is gone and its certificate is not, a finish was broken off."""
    if is_rotating(directory) and not (directory / _NEXT_KEY).exists():
        (directory / _NEXT_PEM).replace(directory / _PEM)
        (directory / BOTH_PEM).unlink(missing_ok=True)


def _create(directory: Path, pem_name: str, key_name: str, name: str, now_ms: int) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _builder(name, _name(name), now_ms, AUTHORITY_DAYS)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    write_secret(directory / key_name, _key_pem(key))
    (directory / pem_name).write_bytes(certificate.public_bytes(Encoding.PEM))


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(path.read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{path} is not an elliptic-curve key")
    return key


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
