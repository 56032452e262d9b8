"""Hosts' certificates: which were given, whether a host may have another, and the end of all of them."""

from collections.abc import Sequence

from coordinator.domain.account import Account
from coordinator.domain.event import EventKind, NewEvent
from coordinator.domain.host import Hold, HostRoom, HostState
from coordinator.domain.metering import Stamp
from coordinator.domain.refusal import Refusal, RefusalCode
from coordinator.domain.states import Cause
from coordinator.services.hosts import existing, quarantine, revoked_topic, room_of
from coordinator.services.reap import lose
from coordinator.services.requests import fingerprint, once
from coordinator.store.ports import Transaction


def recognise(tx: Transaction, host_ids: Sequence[str]) -> list[Refusal | None]:
    """Their certificates are good; but are the hosts ours, still?"""
    refused = tx.hosts_refused(sorted(set(host_ids)))
    return [_refusal(host_id, refused.get(host_id)) for host_id in host_ids]


def _refusal(host_id: str, is_revoked: bool | None) -> Refusal | None:
    if is_revoked is None:
        return unknown(host_id)
    return revoked(host_id) if is_revoked else None


def unknown(host_id: str) -> Refusal:
    """Our database is older than its certificate: restored, or another."""
    return Refusal(RefusalCode.UNAUTHENTICATED, f"{host_id} is not known here; enrol it anew")


def revoked(host_id: str) -> Refusal:
    return Refusal(RefusalCode.UNAUTHENTICATED, f"{host_id} was revoked by the operator; enrol it anew")


def revoke(
    tx: Transaction, operator: Account, request_id: str, host_id: str, reason: str, now: Stamp
) -> HostRoom:
    """For ever: whoever has its key has nothing more by it. What runs there ends as on a lost host."""
    host = existing(tx, host_id)

    def make() -> str:
        if not host.revoked_ms:
            tx.revoke_host(host.id, now.wall_ms)
            text = f"refused for ever: {reason}"
            event = NewEvent(kind=EventKind.HOST_STATE, host_id=host.id, text=text, cause=Cause.PLATFORM)
            tx.append_events([event], now.wall_ms)
        if host.hold is not Hold.QUARANTINED:
            quarantine(tx, host, f"revoked: {reason}", now.wall_ms)
        if host.link is not HostState.LOST:
            lose(tx, host.id, f"revoked: {reason}", now)
        tx.wake(host.id, revoked_topic(host.id))
        return host.id

    once(tx, operator.id, request_id, fingerprint("revoke host", host.id, reason), make)
    return room_of(tx, host.id)


def not_moved(tx: Transaction, authority_digest: bytes, now_ms: int) -> Sequence[str]:
    """Hosts whose only good certificates are of another authority than this."""
    return tx.hosts_certified_only_by_others(authority_digest, now_ms)
