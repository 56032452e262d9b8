"""A small certificate authority: it names this coordinator, and every host.

`ca.pem` and `ca.key` are the authority. While one follows another, `ca-next.pem` and `ca-next.key` are the
one to come: hosts get certificates of it and are told to trust both, and this coordinator still shows itself
by the old one, which everybody knows. `ca.key` may be elsewhere: another file, or what a command prints.
"""

import datetime as dt
import errno
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from runtime import private
from runtime.channel import SERVER_NAME
from runtime.private import Source

AUTHORITY_DAYS = 3650
SERVER_DAYS = 397
# To agents that do not renew their certificates.
HOST_DAYS = 90
# Clocks of strangers' machines are not quite ours.
_SKEW = dt.timedelta(minutes=10)
_PEM, _NEXT_PEM, _NEXT_KEY = "ca.pem", "ca-next.pem", "ca-next.key"
KEY_NAME = "ca.key"
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
    for path in (directory / KEY_NAME, directory / _PEM):
        if path.exists():
            raise FileExistsError(errno.EEXIST, "a coordinator was made here already", str(path))


def create(directory: Path, now_ms: int, kept: Source | None = None) -> None:
    """A new authority in `directory`, and its key where that is kept, unless it is there already."""
    must_be_none(directory)
    source = kept or in_folder(directory)
    if source.command or source.path.exists():
        key = _load_key(source)
    else:
        key = ec.generate_private_key(ec.SECP256R1())
        private.write(source.path, _key_pem(key))
    _certify(directory / _PEM, key, "Usance coordinator's authority", now_ms)


def in_folder(directory: Path) -> Source:
    """Where an authority's key is kept that nobody has moved."""
    return Source(path=directory / KEY_NAME)


def load(directory: Path, now_ms: int, kept: Source | None = None) -> Identity:
    """The authority in `directory`, with a fresh certificate for this run of the server.

    The server's key lives only in memory: clients trust the authority, not one server's key.
    """
    _settle(directory)
    authority_pem = (directory / _PEM).read_bytes()
    authority, authority_key = _pair(directory / _PEM, kept or in_folder(directory))
    issuer, issuer_key, trusted_pem = authority, authority_key, authority_pem
    if is_rotating(directory):
        next_pem = (directory / _NEXT_PEM).read_bytes()
        issuer, issuer_key = _pair(directory / _NEXT_PEM, Source(path=directory / _NEXT_KEY))
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


def days_left(directory: Path, now_ms: int, kept: Source) -> int:
    """Of the authority in `directory`. Raises ValueError where it can't sign."""
    authority, _ = _pair(directory / _PEM, kept)
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
    key = ec.generate_private_key(ec.SECP256R1())
    private.write(directory / _NEXT_KEY, _key_pem(key))
    _certify(directory / _NEXT_PEM, key, f"Usance coordinator's authority {now_ms}", now_ms)
    both = directory / BOTH_PEM
    both.write_bytes((directory / _PEM).read_bytes() + (directory / _NEXT_PEM).read_bytes())
    return both


def next_digest(directory: Path) -> bytes:
    """Of the authority that is to follow."""
    _settle(directory)
    if not is_rotating(directory):
        raise RotationError("no rotation has begun; first: rotate-ca begin")
    return digest_of(x509.load_pem_x509_certificate((directory / _NEXT_PEM).read_bytes()))


def finish_rotation(directory: Path, kept: Source | None = None) -> None:
    """From the next start on only the new authority is trusted, and the old one's key is gone."""
    source, next_key = kept or in_folder(directory), directory / _NEXT_KEY
    if source.command:
        try:
            _pair(directory / _NEXT_PEM, source)
        except private.PrivateError:
            raise RotationError(
                f"put {next_key} where {source.command[0]} finds it, so that it prints this one, then finish"
            ) from None
        next_key.unlink()
    else:
        private.move(next_key, source.path)
    _settle(directory)


def digest_of(authority: x509.Certificate) -> bytes:
    return authority.fingerprint(hashes.SHA256())


def _settle(directory: Path) -> None:
    """The key goes first: where it is gone and its certificate is not, a finish was broken off."""
    if is_rotating(directory) and not (directory / _NEXT_KEY).exists():
        (directory / _NEXT_PEM).replace(directory / _PEM)
        (directory / BOTH_PEM).unlink(missing_ok=True)


def _certify(path: Path, key: ec.EllipticCurvePrivateKey, name: str, now_ms: int) -> None:
    certificate = (
        _builder(name, _name(name), now_ms, AUTHORITY_DAYS)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(certificate.public_bytes(Encoding.PEM))


def _pair(path: Path, source: Source) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A certificate and its key."""
    authority, key = x509.load_pem_x509_certificate(path.read_bytes()), _load_key(source)
    if key.public_key() != authority.public_key():
        raise private.PrivateError(f"{source.name}: not the key of {path.name}")
    return authority, key


def _load_key(source: Source) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(source.read(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        if isinstance(error, private.PrivateError):
            raise
        # What it says may quote what it was given.
        raise private.PrivateError(f"{source.name}: not a PEM key without a password") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise private.PrivateError(f"{source.name}: not an elliptic-curve key")
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
