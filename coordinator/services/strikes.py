"""What counts against a host, and what comes of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.domain.claim import (
    COUNTED,
    DAY_MS,
    STRIKE_MS,
    STRIKE_SENTENCES,
    STRIKES_BEFORE_QUARANTINE,
    Strike,
)
from coordinator.domain.event import EventKind, NewEvent
from coordinator.domain.job import Attempt
from coordinator.domain.states import AttemptState, Cause
from coordinator.services.hosts import existing, quarantine
from coordinator.store.ports import Transaction

_TWO_MACHINES = "two machines take turns with its identity"
_COPIED = "a second machine came with a certificate that this host has replaced"


def strike(
    tx: Transaction,
    host_id: str,
    kind: Strike,
    subject: str,
    detail: str,
    now_ms: int,
    run_ms: int | None = None,
) -> None:
    """Told in the host's events, once for each thing that it is about; enough of them quarantine the host."""
    if not tx.insert_strike(host_id, kind, subject, detail, now_ms, run_ms):
        return
    sentence = STRIKE_SENTENCES[kind]
    event = NewEvent(
        kind=EventKind.REFUSED_CLAIM,
        host_id=host_id,
        text=f"{sentence} ({subject}): {detail}" if detail else f"{sentence} ({subject})",
        cause=Cause.HOST if kind in COUNTED else Cause.UNKNOWN,
    )
    tx.append_events([event], now_ms)
    if counted(tx, [host_id], now_ms)[host_id] >= STRIKES_BEFORE_QUARANTINE:
        quarantine(tx, existing(tx, host_id), f"claimed what can't be, again: {detail or sentence}", now_ms)


def two_machines(tx: Transaction, host_id: str, now_ms: int) -> None:
    """Its identity was copied. Which of them is the host only its seller can tell, by enrolling one anew."""
    strike(tx, host_id, Strike.FALSE_CLAIM, f"day {now_ms // DAY_MS}", _TWO_MACHINES, now_ms)
    quarantine(tx, existing(tx, host_id), f"{_TWO_MACHINES}; enrol one of them anew", now_ms)


def copied(tx: Transaction, host_id: str, certified_ms: int, now_ms: int) -> None:
    """Somebody came with its identity of before, while it was connected with a newer one."""
    strike(tx, host_id, Strike.FALSE_CLAIM, f"certificate {certified_ms}", _COPIED, now_ms)


def counted(tx: Transaction, host_ids: Sequence[str], now_ms: int) -> dict[str, int]:
    """How many claims of late are held against each of these hosts."""
    return tx.strikes_of(host_ids, now_ms - STRIKE_MS)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a host says of an attempt that is not its own; how it stands there, and how long it has run, where
    that was told."""

    attempt_id: str
    epoch: int
    state: AttemptState | None = None
    run_ms: int = 0


def judge(tx: Transaction, host_id: str, claims: Sequence[Claim], now_ms: int) -> None:
    """Claims that are not this host's to make."""
    found = tx.attempts(sorted({claim.attempt_id for claim in claims}))
    for claim in claims:
        kind = _kind(host_id, found.get(claim.attempt_id), claim.epoch, claim.state)
        if kind is None:
            continue
        detail, run_ms = "", None
        if kind is Strike.OTHER_EPOCH:
            detail = f"epoch {claim.epoch}"
        elif kind is Strike.UNKNOWN_ATTEMPT and claim.run_ms:
            # Of a database that was restored: what a seller has worked for, and nobody can be charged for.
            detail, run_ms = f"it had run for {claim.run_ms / 1000:.1f} s, which stay unbilled", claim.run_ms
        strike(tx, host_id, kind, claim.attempt_id[:64], detail, now_ms, run_ms)


def _kind(host_id: str, attempt: Attempt | None, epoch: int, state: AttemptState | None) -> Strike | None:
    if attempt is None:
        return Strike.UNKNOWN_ATTEMPT
    if attempt.host_id != host_id:
        return Strike.FOREIGN_ATTEMPT
    if attempt.epoch != epoch:
        return Strike.OTHER_EPOCH
    if attempt.reported_end is not None and state is not None and state is not AttemptState.ENDED:
        return Strike.ALIVE_AFTER_END
    return None
