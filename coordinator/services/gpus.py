"""To which host a GPU belongs. The rule is in `domain/claim.py`; the database holds it, see `attempt_gpu`."""

from collections.abc import Sequence

from coordinator.domain.account import Account
from coordinator.domain.claim import GpuClaim, GpuOwner, Strike, may_take
from coordinator.domain.event import EventKind, NewEvent
from coordinator.domain.host import Host
from coordinator.domain.refusal import Refusal, RefusalCode, not_found
from coordinator.domain.states import Cause
from coordinator.services.hosts import OFFERS_TOPIC
from coordinator.services.requests import fingerprint, once
from coordinator.services.strikes import counted, strike
from coordinator.store.ports import Transaction

CLAIMS_LOOK_MAX = 200
NOTICES_MAX = 100


def named(tx: Transaction, host: Host, gpu_uuids: Sequence[str], foreign: Sequence[str], now_ms: int) -> None:
    """The host says which GPUs it has; `foreign` belong to others. `host` is as it was before it said so."""
    if {gpu.uuid for gpu in host.facts.gpus} != set(gpu_uuids):
        tx.save_named(host.id, gpu_uuids, now_ms)
    if not foreign:
        return
    owners = tx.gpu_owners(foreign)
    refused = [
        uuid
        for uuid in foreign
        if uuid in owners and not _taken_over(tx, uuid, owners[uuid], host.id, host.account_id, now_ms)
    ]
    new = tx.insert_claims(host.id, refused, now_ms)
    for uuid in new:
        _tell(tx, host.id, f"GPU {uuid} belongs to another host and is not sold from here", now_ms)
        _tell(tx, owners[uuid].host_id, f"another host claims GPU {uuid}; it was refused", now_ms)
    others = [uuid for uuid in new if owners[uuid].account_id != host.account_id]
    if others:
        strike(tx, host.id, Strike.TAKEN_GPU, others[0], f"{len(others)} at once", now_ms)


def pass_once(tx: Transaction, now_ms: int) -> None:
    """Claims that were refused, looked at again: their owners may have gone."""
    claims = tx.claims(CLAIMS_LOOK_MAX)
    owners = tx.gpu_owners(sorted({claim.gpu_uuid for claim in claims})) if claims else {}
    moved = set[str]()
    for claim in claims:
        if claim.gpu_uuid in moved:
            continue
        owner = owners[claim.gpu_uuid]
        if _taken_over(tx, claim.gpu_uuid, owner, claim.host_id, claim.account_id, now_ms):
            moved.add(claim.gpu_uuid)


def claims(tx: Transaction) -> Sequence[GpuClaim]:
    """For the operator: who names a GPU of whose."""
    return tx.claims(CLAIMS_LOOK_MAX)


def notices(tx: Transaction, host_ids: Sequence[str], now_ms: int) -> dict[str, list[str]]:
    """For people: what of each of these hosts somebody should look at."""
    found: dict[str, list[str]] = {host_id: [] for host_id in host_ids}
    if not host_ids:
        return found
    for host_id, count in counted(tx, host_ids, now_ms).items():
        if count:
            found[host_id].append(f"claims that were refused and count against it: {count}")
    for claim in tx.claims_about(host_ids):
        if claim.host_id in found:
            found[claim.host_id].append(f"GPU {claim.gpu_uuid} belongs to another host; not sold from here")
        if claim.owner_host_id in found:
            found[claim.owner_host_id].append(f"another host claims GPU {claim.gpu_uuid}; refused")
    return {host_id: of[:NOTICES_MAX] for host_id, of in found.items()}


def release(
    tx: Transaction, operator: Account, request_id: str, gpu_uuid: str, reason: str, now_ms: int
) -> str:
    """By the operator's word: to the host that has claimed it for longest, or to the next that names it.

    Answers to which; "" for none yet.
    """

    def make() -> str:
        owner = tx.gpu_owners([gpu_uuid]).get(gpu_uuid)
        if owner is None:
            raise not_found("GPU", gpu_uuid)
        if owner.in_use:
            raise Refusal(
                RefusalCode.FORBIDDEN,
                f"a job of {owner.host_id} has it",
                field="gpu_uuid",
                remedy="quarantine the host and wait until the job has ended",
            )
        waiting = tx.claims_to(gpu_uuid)
        why = f"by the operator: {reason}"
        if not waiting:
            tx.free_gpu(gpu_uuid)
            _tell(tx, owner.host_id, f"GPU {gpu_uuid} belongs to this host no more, {why}", now_ms)
            tx.wake(OFFERS_TOPIC)
            return ""
        _move(tx, gpu_uuid, owner, waiting[0].host_id, why, now_ms)
        if owner.absent_since_ms is None:
            # It names it still, and is not held to have lied when it does so again.
            tx.insert_claims(owner.host_id, [gpu_uuid], now_ms)
        return waiting[0].host_id

    return once(tx, operator.id, request_id, fingerprint("release_gpu", gpu_uuid, reason), make)


def _taken_over(
    tx: Transaction, gpu_uuid: str, owner: GpuOwner, host_id: str, account_id: str, now_ms: int
) -> bool:
    if not may_take(owner, account_id, now_ms):
        return False
    _move(tx, gpu_uuid, owner, host_id, "its host is lost or let go of it", now_ms)
    return True


def _move(tx: Transaction, gpu_uuid: str, owner: GpuOwner, host_id: str, why: str, now_ms: int) -> None:
    moved = tx.move_gpu(gpu_uuid, owner.host_id, host_id)
    assert moved, "read in this transaction"
    _tell(tx, owner.host_id, f"GPU {gpu_uuid} belongs to another host now, {why}", now_ms)
    _tell(tx, host_id, f"GPU {gpu_uuid} belongs to this host now, {why}", now_ms)
    tx.wake(OFFERS_TOPIC)


def _tell(tx: Transaction, host_id: str, text: str, now_ms: int) -> None:
    event = NewEvent(kind=EventKind.REFUSED_CLAIM, host_id=host_id, text=text, cause=Cause.PLATFORM)
    tx.append_events([event], now_ms)
