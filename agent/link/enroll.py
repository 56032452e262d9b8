"""Turns an enrolment token into this machine's identity."""

import json
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent.domain.token import EnrolmentToken
from agent.files import replace_durably
from agent.link.identity import Identity
from runtime.channel import open_channel
from usance.v1 import host_pb2, host_pb2_grpc

_WAIT_S = 20


async def enroll(state_dir: Path, token: EnrolmentToken) -> Identity:
    """Enrol, or enrol again: with the same token and the key that is here the host stays the same."""
    key_pem = _key(state_dir)
    channel = open_channel(token.market, token.authority_pem.encode())
    try:
        response = await host_pb2_grpc.EnrolmentServiceStub(channel).Enroll(
            host_pb2.EnrollRequest(token_secret=token.secret, csr_pem=_request(key_pem)),
            timeout=_WAIT_S,
            wait_for_ready=True,
        )
    finally:
        await channel.close()
    replace_durably(state_dir / "authority.pem", response.authority_pem)
    replace_durably(state_dir / "cert.pem", response.certificate_pem)
    # Last, because it makes the identity complete.
    identity = {"host_id": response.host_id, "hosts": token.hosts}
    replace_durably(state_dir / "identity.json", json.dumps(identity).encode())
    return Identity(
        host_id=response.host_id,
        hosts=token.hosts,
        authority_pem=response.authority_pem,
        certificate_pem=response.certificate_pem,
        key_pem=key_pem,
    )


def _key(state_dir: Path) -> bytes:
    """This machine's own key. It is made here and never leaves."""
    path = state_dir / "key.pem"
    if not path.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        replace_durably(path, pem)
    return path.read_bytes()


def _request(key_pem: bytes) -> bytes:
    key = serialization.load_pem_private_key(key_pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    # The coordinator names the host and ignores this name; a request can't be without one.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "usance-agent")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)
