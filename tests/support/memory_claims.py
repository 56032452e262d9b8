"""Whose GPUs are whose, and what counts against hosts, in plain Python."""

from collections.abc import Sequence

from coordinator.domain.claim import COUNTED, STRIKES_KEPT_MAX, GpuClaim, GpuOwner, Strike
from coordinator.domain.states import ATTEMPT_LIVE
from tests.support.memory_hosts import MemoryHosts


class MemoryClaims(MemoryHosts):
    def __init__(self) -> None:
        super().__init__()
        self._absent_ms: dict[str, int] = {}
        # By GPU and who claims it, since when.
        self._claims: dict[tuple[str, str], int] = {}
        # By host: kind, what it is about, and when it was told.
        self._strikes: dict[str, list[tuple[Strike, str, int]]] = {}

    def gpu_owners(self, gpu_uuids: Sequence[str]) -> dict[str, GpuOwner]:
        return {uuid: self._owner(uuid) for uuid in gpu_uuids if uuid in self._gpu_owners}

    def _owner(self, uuid: str) -> GpuOwner:
        host = self._hosts[self._gpu_owners[uuid]]
        live = [one for one in self._attempts.values() if one.state in ATTEMPT_LIVE]
        return GpuOwner(
            host_id=host.id,
            account_id=host.account_id,
            link=host.link,
            link_since_ms=host.since_ms,
            absent_since_ms=self._absent_ms.get(uuid),
            in_use=any(gpu.uuid == uuid for one in live for gpu in one.gpus),
        )

    def move_gpu(self, gpu_uuid: str, before_host_id: str, after_host_id: str) -> bool:
        self._claims.pop((gpu_uuid, after_host_id), None)
        if self._gpu_owners.get(gpu_uuid) != before_host_id:
            return False
        self._gpu_owners[gpu_uuid] = after_host_id
        self._absent_ms.pop(gpu_uuid, None)
        return True

    def free_gpu(self, gpu_uuid: str) -> None:
        for of in (self._gpu_owners, self._absent_ms):
            of.pop(gpu_uuid, None)

    def save_named(self, host_id: str, gpu_uuids: Sequence[str], now_ms: int) -> None:
        for uuid, owner in self._gpu_owners.items():
            if owner == host_id and uuid in gpu_uuids:
                self._absent_ms.pop(uuid, None)
            elif owner == host_id:
                self._absent_ms.setdefault(uuid, now_ms)
        self._claims = {
            (uuid, of): first_ms
            for (uuid, of), first_ms in self._claims.items()
            if of != host_id or uuid in gpu_uuids
        }

    def insert_claims(self, host_id: str, gpu_uuids: Sequence[str], now_ms: int) -> Sequence[str]:
        new = [uuid for uuid in gpu_uuids if (uuid, host_id) not in self._claims]
        self._claims |= {(uuid, host_id): now_ms for uuid in new}
        return new

    def claims(self, limit: int) -> Sequence[GpuClaim]:
        return self._all_claims()[:limit]

    def claims_about(self, host_ids: Sequence[str]) -> Sequence[GpuClaim]:
        return [one for one in self._all_claims() if {one.host_id, one.owner_host_id} & set(host_ids)]

    def claims_to(self, gpu_uuid: str) -> Sequence[GpuClaim]:
        return [one for one in self._all_claims() if one.gpu_uuid == gpu_uuid]

    def _all_claims(self) -> list[GpuClaim]:
        found = [
            GpuClaim(
                gpu_uuid=uuid,
                host_id=host_id,
                account_id=self._hosts[host_id].account_id,
                first_ms=first_ms,
                owner_host_id=self._gpu_owners[uuid],
                owner_account_id=self._hosts[self._gpu_owners[uuid]].account_id,
            )
            for (uuid, host_id), first_ms in self._claims.items()
            if uuid in self._gpu_owners
        ]
        return sorted(found, key=lambda one: (one.first_ms, one.gpu_uuid, one.host_id))

    def insert_strike(
        self, host_id: str, kind: Strike, subject: str, detail: str, now_ms: int, run_ms: int | None = None
    ) -> bool:
        told = self._strikes.setdefault(host_id, [])
        if len(told) >= STRIKES_KEPT_MAX and kind in COUNTED | {Strike.UNKNOWN_ATTEMPT}:
            return False
        if any((kind, subject) == (other, about) for other, about, _ in told):
            return False
        told.append((kind, subject, now_ms))
        return True

    def strikes_of(self, host_ids: Sequence[str], since_ms: int) -> dict[str, int]:
        return {host_id: self._counted(host_id, since_ms) for host_id in host_ids}

    def _counted(self, host_id: str, since_ms: int) -> int:
        count = 0
        for kind, _, told_ms in self._strikes.get(host_id, ()):
            if kind is Strike.FORGIVEN:
                count = 0
            elif kind in COUNTED and told_ms >= since_ms:
                count += 1
        return count
