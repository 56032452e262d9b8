"""What hosts may not claim, and how a GPU comes from one host to another."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from coordinator.domain.host import HostState

DAY_MS = 86_400_000
# So many in so long hold a host back from new jobs: one may be an accident, of a disk or of a new version.
STRIKES_BEFORE_QUARANTINE = 3
STRIKE_MS = 30 * DAY_MS
# What a host can make us remember of it; it is quarantined long before.
STRIKES_KEPT_MAX = 200
# How long a GPU stays with a host that is lost, or says itself that it has it no more.
OWNER_MS = 7 * DAY_MS


class Strike(StrEnum):
    """What a host claimed that can't be. Each is told once for each thing that it is about."""

    FALSE_CLAIM = "false_claim"
    FOREIGN_ATTEMPT = "foreign_attempt"
    OTHER_EPOCH = "other_epoch"
    ALIVE_AFTER_END = "alive_after_end"
    TAKEN_GPU = "taken_gpu"
    # Held against nobody: our own database may have been restored from before it.
    UNKNOWN_ATTEMPT = "unknown_attempt"
    # The operator trusts it again: what was before counts no longer.
    FORGIVEN = "forgiven"


STRIKE_SENTENCES = {
    Strike.FALSE_CLAIM: "it claimed what can't be",
    Strike.FOREIGN_ATTEMPT: "it spoke for an attempt of another host",
    Strike.OTHER_EPOCH: "it spoke for an attempt under an epoch that it was never given",
    Strike.ALIVE_AFTER_END: "it claimed a run to be alive whose end it had told",
    Strike.TAKEN_GPU: "it claimed a GPU that belongs to another host",
    Strike.UNKNOWN_ATTEMPT: "it holds an attempt that is not known here, and is told to end it",
    Strike.FORGIVEN: "the operator trusts it again",
}
COUNTED = frozenset(Strike) - {Strike.UNKNOWN_ATTEMPT, Strike.FORGIVEN}


class GpuOwner(NamedTuple):
    """The host that a GPU belongs to, and what speaks for or against it. Asked for by the thousand."""

    host_id: str
    account_id: str
    link: HostState
    link_since_ms: int
    # Since when the host itself has not named it among its GPUs any more; None while it does.
    absent_since_ms: int | None
    in_use: bool


@dataclass(frozen=True, kw_only=True)
class GpuClaim:
    """A host names a GPU that belongs to another."""

    gpu_uuid: str
    host_id: str
    account_id: str
    first_ms: int
    owner_host_id: str
    owner_account_id: str


def may_take(owner: GpuOwner, account_id: str, now_ms: int) -> bool:
    """May a host of this account have the GPU now?

    A seller moves cards between their own machines, and makes a machine anew, as they like: it is enough that
    the other one is lost or has let go. Anybody else waits until it has been so for a week.
    """
    gone_ms = [] if owner.absent_since_ms is None else [owner.absent_since_ms]
    if owner.link is HostState.LOST:
        gone_ms.append(owner.link_since_ms)
    if owner.in_use or not gone_ms:
        return False
    return account_id == owner.account_id or now_ms - min(gone_ms) >= OWNER_MS
