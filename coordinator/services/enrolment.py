"""How a machine becomes a host: a token from its seller, used once."""

from coordinator.domain.account import Account
from coordinator.domain.event import EventKind, NewEvent
from coordinator.domain.metering import Stamp
from coordinator.domain.refusal import Refusal, RefusalCode
from coordinator.domain.states import Cause
from coordinator.services.accounts import NewToken
from coordinator.services.mint import Mint, digest_of
from coordinator.services.requests import fingerprint, once
from coordinator.store.ports import Transaction
from runtime.ids import new_id

SECRET_PREFIX = "usance_sec"  # noqa: S105 - a prefix by which secret scanners know our secrets
SECRET_MS = 3_600_000


def create_secret(tx: Transaction, mint: Mint, seller: Account, request_id: str, now_ms: int) -> NewToken:
    secret = mint.token(SECRET_PREFIX, seller.id, request_id)

    def make() -> str:
        tx.insert_enrolment_token(digest_of(secret), seller.id, now_ms + SECRET_MS)
        return str(now_ms + SECRET_MS)

    expires = once(tx, seller.id, request_id, fingerprint("enrolment"), make)
    return NewToken(token=secret, expires_ms=int(expires))


def enroll(tx: Transaction, secret: str, key_digest: bytes, stamp: Stamp) -> str:
    """The id of the host that this secret and this key stand for: the same key gets the same host again."""
    digest = digest_of(secret)
    fresh_id = new_id("host")
    host_id = tx.use_enrolment_token(digest, key_digest, fresh_id, stamp.wall_ms)
    known = None if host_id is None else tx.host(host_id)
    if host_id is None or (known is not None and known.revoked_ms):
        raise Refusal(
            RefusalCode.ENROLMENT_REFUSED,
            "the enrolment token is unknown, expired, was used for another machine, or its host was revoked",
            field="token_secret",
            remedy="a fresh token from the seller",
        )
    if host_id == fresh_id:
        tx.insert_host(host_id, digest, stamp)
        event = NewEvent(
            kind=EventKind.HOST_ENROLLED,
            host_id=host_id,
            text="a machine was enrolled with a token of its seller",
            cause=Cause.HOST,
        )
        tx.append_events([event], stamp.wall_ms)
    return host_id
