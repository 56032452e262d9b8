"""A certificate authority for tests, as small as can be."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A key and the certificate for it."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)


class Authority:
    """Signs what it is asked to."""

    def __init__(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("test authority")
        builder = _builder(name, name, key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self.pair = Pair(key=key, certificate=builder.sign(key, hashes.SHA256()))

    def server(self, dns_name: str) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(dns_name), self.pair.certificate.subject, key.public_key())
        names = x509.SubjectAlternativeName([x509.DNSName(dns_name)])
        builder = builder.add_extension(names, critical=False)
        return Pair(key=key, certificate=builder.sign(self.pair.key, hashes.SHA256()))

    def sign(self, csr_pem: bytes, common_name: str, hours: tuple[int, int] = (-1, 24)) -> bytes:
        """Good from so many hours from now until so many."""
        request = x509.load_pem_x509_csr(csr_pem)
        assert request.is_signature_valid
        issuer = self.pair.certificate.subject
        builder = _builder(_name(common_name), issuer, request.public_key(), hours)
        certificate = builder.sign(self.pair.key, hashes.SHA256())
        return certificate.public_bytes(serialization.Encoding.PEM)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: object, hours: tuple[int, int] = (-1, 24)
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)  # type: ignore[arg-type]
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(hours=hours[0]))
        .not_valid_after(now + timedelta(hours=hours[1]))
    )
