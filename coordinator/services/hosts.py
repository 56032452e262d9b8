"""A host's standing: what its connection, its seller and the operator make of it."""

from collections.abc import Sequence
from dataclasses import replace

from coordinator.domain.account import Account
from coordinator.domain.claim import Strike
from coordinator.domain.event import EventKind, NewEvent
from coordinator.domain.host import Hold, Host, HostRoom, HostState
from coordinator.domain.refusal import Refusal, RefusalCode, not_found
from coordinator.domain.standing import host_state, reliability_after
from coordinator.domain.states import Cause
from coordinator.services.requests import fingerprint, once
from coordinator.store.ports import Transaction

OFFERS_TOPIC = "offers"
_TRUSTED = "the operator trusts it again"
_WISHES = {
    Hold.NONE: "its seller takes jobs again",
    Hold.PAUSED: "its seller takes no new jobs",
    Hold.DRAINING: "its seller wants the machine back",
}


def revoked_topic(host_id: str) -> str:
    """Rung when a host is refused from now on."""
    return f"revoked/{host_id}"


def of_seller(tx: Transaction, account_id: str, after_id: str, limit: int) -> Sequence[HostRoom]:
    """Oldest first."""
    return tx.rooms_of(tx.host_ids_of(account_id, after_id, limit))


def room_of(tx: Transaction, host_id: str) -> HostRoom:
    """A host that is known to exist, with what of it is free."""
    (room,) = tx.rooms_of([host_id])
    return room


def change_link(tx: Transaction, host: Host, link: HostState, reason: str, now_ms: int) -> bool:
    """Heard, not heard for a while, or given up. False: somebody else was faster."""
    if not tx.save_link(host.id, host.link, link, reason, now_ms):
        return False
    _tell(tx, host, replace(host, link=link, state=host_state(link, host.hold)), reason, Cause.HOST, now_ms)
    return True


def trust_again(tx: Transaction, operator: Account, request_id: str, host: Host, now_ms: int) -> HostRoom:
    """The operator's distrust is over. What the seller wished beneath it stays the seller's."""
    if host.revoked_ms:
        raise Refusal(
            RefusalCode.FORBIDDEN, "it was revoked, and that is for ever; its seller can enrol it anew"
        )

    def make() -> str:
        if host.hold is Hold.QUARANTINED:
            # What was before counts no longer, the next lie is the first.
            tx.insert_strike(host.id, Strike.FORGIVEN, request_id, "", now_ms)
            wish = host.hold_under
            reason = _TRUSTED if wish is Hold.NONE else _WISHES[wish]
            tx.lift_quarantine(host.id, reason, now_ms)
            after = replace(host, hold=wish, hold_under=Hold.NONE, state=host_state(host.link, wish))
            _tell(tx, host, after, _TRUSTED, Cause.PLATFORM, now_ms)
        return host.id

    once(tx, operator.id, request_id, fingerprint("trust", host.id), make)
    return room_of(tx, host.id)


def hold(
    tx: Transaction, caller: Account, request_id: str, host: Host, wish: Hold, reason: str, now_ms: int
) -> HostRoom:
    """Hold a host back from new jobs, or let it have them again (NONE)."""

    def make() -> str:
        _hold(tx, host, wish, reason, Cause.PLATFORM if wish is Hold.QUARANTINED else Cause.HOST, now_ms)
        return host.id

    once(tx, caller.id, request_id, fingerprint("hold", host.id, wish, reason), make)
    return room_of(tx, host.id)


def quarantine(tx: Transaction, host: Host, reason: str, now_ms: int) -> None:
    """By the coordinator itself, for what the host did."""
    if host.hold is not Hold.QUARANTINED:
        _hold(tx, host, Hold.QUARANTINED, reason, Cause.PLATFORM, now_ms)


def seller_hold(
    tx: Transaction, seller: Account, request_id: str, host_id: str, wish: Hold, now_ms: int
) -> HostRoom:
    """A seller's wish for a host of their own; distrust is not theirs to lift."""
    host = owned(tx, seller, host_id)
    if host.hold is Hold.QUARANTINED:
        raise Refusal(
            RefusalCode.FORBIDDEN, f"the host is quarantined: {host.reason}; only the operator can lift that"
        )
    return hold(tx, seller, request_id, host, wish, _WISHES[wish], now_ms)


def wish_at_the_machine(tx: Transaction, host_id: str, request_id: str, wish: Hold, now_ms: int) -> Host:
    """The seller's wish, told by the host itself."""
    seller = tx.account(existing(tx, host_id).account_id)
    assert seller is not None, "every host is somebody's"
    return seller_hold(tx, seller, request_id, host_id, wish, now_ms).host


def owned(tx: Transaction, seller: Account, host_id: str) -> Host:
    """What one may not see does not exist."""
    found = tx.host(host_id)
    if found is None or found.account_id != seller.id:
        raise not_found("host", host_id)
    return found


def existing(tx: Transaction, host_id: str) -> Host:
    """For the operator, to whom every host is known."""
    found = tx.host(host_id)
    if found is None:
        raise not_found("host", host_id)
    return found


def note_end(tx: Transaction, host_id: str, *, host_at_fault: bool) -> None:
    """An attempt has ended: it counts for or against the host."""
    found = existing(tx, host_id)
    tx.save_reliability(host_id, reliability_after(found.reliability_ppm, host_at_fault=host_at_fault))


def _hold(tx: Transaction, host: Host, wish: Hold, reason: str, cause: Cause, now_ms: int) -> None:
    tx.save_hold(host.id, wish, reason, now_ms)
    _tell(tx, host, replace(host, hold=wish, state=host_state(host.link, wish)), reason, cause, now_ms)


def _tell(tx: Transaction, before: Host, after: Host, reason: str, cause: Cause, now_ms: int) -> None:
    if after.state is not before.state:
        text = f"{before.state} to {after.state}: {reason}"
        event = NewEvent(kind=EventKind.HOST_STATE, host_id=after.id, text=text, cause=cause)
        tx.append_events([event], now_ms)
    tx.wake(after.id, OFFERS_TOPIC)
