"""Turns an enrolment token into this machine's identity."""

from pathlib import Path

from agent.domain.token import EnrolmentToken
from agent.files import replace_durably
from agent.link.identity import Identity, save
from agent.link.keys import new_key, signing_request
from runtime.channel import open_channel
from runtime.clock import SystemClock
from usance.v1 import host_pb2, host_pb2_grpc

_WAIT_S = 20


async def enroll(state_dir: Path, token: EnrolmentToken) -> Identity:
    """Enrol, or enrol again: with the same token and the key that is here the host stays the same."""
    key_pem = _key(state_dir)
    channel = open_channel(token.market, token.authority_pem.encode())
    try:
        response = await host_pb2_grpc.EnrolmentServiceStub(channel).Enroll(
            host_pb2.EnrollRequest(token_secret=token.secret, csr_pem=signing_request(key_pem), renews=True),
            timeout=_WAIT_S,
            wait_for_ready=True,
        )
    finally:
        await channel.close()
    enrolled = Identity(
        host_id=response.host_id,
        hosts=token.hosts,
        authority_pem=response.authority_pem,
        certificate_pem=response.certificate_pem,
        key_pem=key_pem,
        begins_ms=SystemClock().wall_ms(),
        ends_ms=response.expires_at_ms,
    )
    save(state_dir, enrolled)
    return enrolled


def _key(state_dir: Path) -> bytes:
    """This machine's own key. It is made here and never leaves."""
    path = state_dir / "key.pem"
    if not path.exists():
        replace_durably(path, new_key())
    return path.read_bytes()
