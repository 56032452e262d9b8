"""Every change carries its caller's id: the same id with the same content changes nothing more."""

import hashlib
from collections.abc import Callable

from coordinator.domain.refusal import Refusal, RefusalCode
from coordinator.store.ports import Transaction


def fingerprint(*parts: object) -> bytes:
    """Stands for a request's content. Parts are length-prefixed, so they can't run into each other."""
    pieces = list[bytes]()
    for part in parts:
        raw = str(part).encode()
        pieces += len(raw).to_bytes(8, "big"), raw
    return hashlib.sha256(b"".join(pieces)).digest()


def once(tx: Transaction, caller_id: str, request_id: str, content: bytes, make: Callable[[], str]) -> str:
    """What `make` answered the first time; it is called only then."""
    known = tx.recall(caller_id, request_id)
    if known is not None:
        known_content, answer = known
        if known_content != content:
            raise reused(request_id)
        return answer
    answer = make()
    tx.remember(caller_id, request_id, content, answer)
    return answer


def reused(request_id: str) -> Refusal:
    return Refusal(
        RefusalCode.REQUEST_ID_REUSED,
        f"request_id {request_id} was used before for something else",
        field="request_id",
        remedy="a new UUID for each new request",
    )
