"""Keys of this machine's own, and the requests that others sign for them."""

import json
import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def new_key() -> bytes:
    """PEM. It is made here and never leaves."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def signing_request(key_pem: bytes) -> bytes:
    key = serialization.load_pem_private_key(key_pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    # The coordinator names the host and ignores this name; a request can't be without one.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "usance-agent")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def main() -> None:
    """For who needs a key once in days, and not what makes keys in memory all the time."""
    key_pem = new_key()
    fields = {"key_pem": key_pem.decode(), "csr_pem": signing_request(key_pem).decode()}
    sys.stdout.write(json.dumps(fields))


if __name__ == "__main__":
    main()
