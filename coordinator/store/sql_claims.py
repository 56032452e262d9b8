"""What hosts claim, in SQL: GPUs that belong to them, GPUs that do not, and what can't be."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Integer, Select, bindparam, delete, func, insert, select, text, update

from coordinator.domain.claim import COUNTED, STRIKES_KEPT_MAX, GpuClaim, GpuOwner, Strike
from coordinator.domain.host import HostState
from coordinator.store.bulk import rows_among
from coordinator.store.sql_part import SqlPart
from coordinator.store.tables import attempt_gpu, gpu_claim, gpu_owner, host, strike

_COUNTED = [str(kind) for kind in sorted(COUNTED)]
_OWNERS = (
    select(
        gpu_owner.c.gpu_uuid,
        gpu_owner.c.host_id,
        gpu_owner.c.absent_ms,
        host.c.account_id,
        host.c.state,
        host.c.since_ms,
        attempt_gpu.c.attempt_id,
    )
    .join(host, host.c.id == gpu_owner.c.host_id)
    .outerjoin(attempt_gpu, attempt_gpu.c.gpu_uuid == gpu_owner.c.gpu_uuid)
)
_OWN = text("INSERT INTO gpu_owner (gpu_uuid, host_id) VALUES (:gpu_uuid, :host_id) ON CONFLICT DO NOTHING")
_CLAIM = text(
    "INSERT INTO gpu_claim (gpu_uuid, host_id, first_ms) VALUES (:gpu_uuid, :host_id, :first_ms)"
    " ON CONFLICT DO NOTHING"
)
# To look a state up by its word takes a fraction of what it takes to make it of it.
LINKS = {str(state): state for state in HostState}


class SqlClaims(SqlPart):
    def own_gpus(self, host_id: str, gpu_uuids: Sequence[str]) -> Sequence[str]:
        """GPUs of nobody's are the host's from now on; answers which are another's."""
        if not gpu_uuids:
            return []
        named = gpu_owner.c.gpu_uuid.in_(gpu_uuids)
        known = set(self.beside.execute(select(gpu_owner.c.gpu_uuid).where(named)).scalars())
        new = [{"gpu_uuid": uuid, "host_id": host_id} for uuid in gpu_uuids if uuid not in known]
        if new:
            self.beside.execute(_OWN, new)
        foreign = select(gpu_owner.c.gpu_uuid).where(named, gpu_owner.c.host_id != host_id)
        return sorted(self.beside.execute(foreign).scalars())

    def gpu_owners(self, gpu_uuids: Sequence[str]) -> dict[str, GpuOwner]:
        # Whether it is in use may be among what is held back.
        found = rows_among(self.connection, _OWNERS, gpu_owner.c.gpu_uuid, gpu_uuids)
        return dict(_owner(row) for row in found.all())

    def move_gpu(self, gpu_uuid: str, before_host_id: str, after_host_id: str) -> bool:
        """From one host to another, whose claim to it is settled by that. False: somebody else was faster."""
        done = self.beside.execute(
            update(gpu_owner)
            .where(gpu_owner.c.gpu_uuid == gpu_uuid, gpu_owner.c.host_id == before_host_id)
            .values(host_id=after_host_id, absent_ms=None)
        )
        self.beside.execute(
            delete(gpu_claim).where(gpu_claim.c.gpu_uuid == gpu_uuid, gpu_claim.c.host_id == after_host_id)
        )
        return done.rowcount == 1

    def free_gpu(self, gpu_uuid: str) -> None:
        """It belongs to nobody until a host names it. Nobody else may claim it now."""
        self.beside.execute(delete(gpu_owner).where(gpu_owner.c.gpu_uuid == gpu_uuid))

    def save_named(self, host_id: str, gpu_uuids: Sequence[str], now_ms: int) -> None:
        """These the host names now, and no others: what it has and does not name is absent from now on."""
        mine = gpu_owner.c.host_id == host_id
        named = gpu_owner.c.gpu_uuid.in_(gpu_uuids)
        self.beside.execute(
            update(gpu_owner).where(mine, named, gpu_owner.c.absent_ms.is_not(None)).values(absent_ms=None)
        )
        self.beside.execute(
            update(gpu_owner).where(mine, ~named, gpu_owner.c.absent_ms.is_(None)).values(absent_ms=now_ms)
        )
        self.beside.execute(
            delete(gpu_claim).where(gpu_claim.c.host_id == host_id, gpu_claim.c.gpu_uuid.not_in(gpu_uuids))
        )

    def insert_claims(self, host_id: str, gpu_uuids: Sequence[str], now_ms: int) -> Sequence[str]:
        """Which of them the host had not claimed yet."""
        if not gpu_uuids:
            return []
        mine = select(gpu_claim.c.gpu_uuid).where(gpu_claim.c.host_id == host_id)
        known = set(self.beside.execute(mine.where(gpu_claim.c.gpu_uuid.in_(gpu_uuids))).scalars())
        new = [uuid for uuid in gpu_uuids if uuid not in known]
        if new:
            self.beside.execute(
                _CLAIM, [{"gpu_uuid": uuid, "host_id": host_id, "first_ms": now_ms} for uuid in new]
            )
        return new

    def claims(self, limit: int) -> Sequence[GpuClaim]:
        """GPUs that a host names and another has, oldest first."""
        return self._claims(_CLAIMS_FIRST, {"most": limit})

    def claims_about(self, host_ids: Sequence[str]) -> Sequence[GpuClaim]:
        """Those by or against these hosts."""
        about = gpu_claim.c.host_id.in_(host_ids) | gpu_owner.c.host_id.in_(host_ids)
        return self._claims(_CLAIMS.where(about))

    def claims_to(self, gpu_uuid: str) -> Sequence[GpuClaim]:
        return self._claims(_CLAIMS.where(gpu_claim.c.gpu_uuid == gpu_uuid))

    def _claims(self, query: Select[Any], given: Mapping[str, int] | None = None) -> Sequence[GpuClaim]:
        return [GpuClaim(**row) for row in self.beside.execute(query, given).mappings()]

    def insert_strike(
        self, host_id: str, kind: Strike, subject: str, detail: str, now_ms: int, run_ms: int | None = None
    ) -> bool:
        """False: it was told before, or the host has told so many that no more are kept."""
        mine = strike.c.host_id == host_id
        last = self.beside.execute(select(func.max(strike.c.number)).where(mine)).scalar_one() or 0
        known = select(func.count()).where(mine, strike.c.kind == str(kind), strike.c.subject == subject)
        if last >= STRIKES_KEPT_MAX and kind in COUNTED | {Strike.UNKNOWN_ATTEMPT}:
            return False
        if self.beside.execute(known).scalar_one():
            return False
        self.beside.execute(
            insert(strike).values(
                host_id=host_id,
                number=last + 1,
                kind=str(kind),
                subject=subject,
                detail=detail,
                happened_ms=now_ms,
                run_ms=run_ms,
            )
        )
        return True

    def strikes_of(self, host_ids: Sequence[str], since_ms: int) -> dict[str, int]:
        """What counts against each of these hosts: since then, and since it was last forgiven."""
        forgiven = strike.alias("forgiven")
        last_forgiven = (
            select(func.coalesce(func.max(forgiven.c.number), 0))
            .where(forgiven.c.host_id == strike.c.host_id, forgiven.c.kind == str(Strike.FORGIVEN))
            .scalar_subquery()
        )
        counted = (
            select(strike.c.host_id, func.count().label("count"))
            .where(
                strike.c.host_id.in_(host_ids),
                strike.c.kind.in_(_COUNTED),
                strike.c.happened_ms >= since_ms,
                strike.c.number > last_forgiven,
            )
            .group_by(strike.c.host_id)
        )
        found = dict.fromkeys(host_ids, 0)
        return found | {row.host_id: row[1] for row in self.beside.execute(counted)}


def _owner(row: Sequence[Any]) -> tuple[str, GpuOwner]:
    """Of a row of the query above: by its names it would take three times as long."""
    gpu_uuid, host_id, absent_ms, account_id, state, since_ms, attempt_id = row
    in_use = attempt_id is not None
    return gpu_uuid, GpuOwner(host_id, account_id, LINKS[state], since_ms, absent_ms, in_use)


def _claims() -> Select[Any]:
    claimant, owner = host.alias("claimant"), host.alias("owner")
    query: Select[Any] = (
        select(
            gpu_claim.c.gpu_uuid,
            gpu_claim.c.host_id,
            claimant.c.account_id,
            gpu_claim.c.first_ms,
            gpu_owner.c.host_id.label("owner_host_id"),
            owner.c.account_id.label("owner_account_id"),
        )
        .join(gpu_owner, gpu_owner.c.gpu_uuid == gpu_claim.c.gpu_uuid)
        .join(claimant, claimant.c.id == gpu_claim.c.host_id)
        .join(owner, owner.c.id == gpu_owner.c.host_id)
        .order_by(gpu_claim.c.first_ms, gpu_claim.c.gpu_uuid, gpu_claim.c.host_id)
    )
    return query


_CLAIMS = _claims()
# As the passes ask it each second: to put a statement together costs more than to run it.
_CLAIMS_FIRST = _CLAIMS.limit(bindparam("most", type_=Integer))
