"""Enrolment, hosts and what of them is free, in SQL."""

from collections import Counter
from collections.abc import Mapping, Sequence

from sqlalchemy import ColumnElement, Integer, bindparam, case, func, insert, or_, select, true, update

from coordinator.domain.host import (
    RELIABILITY_PPM_AT_FIRST,
    Certificate,
    Hold,
    Host,
    HostFacts,
    HostRoom,
    HostState,
    Isolation,
    Terms,
)
from coordinator.domain.metering import Stamp
from coordinator.domain.standing import host_state
from coordinator.store.bulk import rows_among, update_rows
from coordinator.store.codec import Json, Row, facts_from_json, facts_to_json, terms_from_json, terms_to_json
from coordinator.store.live import ONLY_LIVE_ATTEMPTS
from coordinator.store.ports_hosts import Page, Seen
from coordinator.store.sql_claims import LINKS, SqlClaims
from coordinator.store.tables import (
    account,
    attempt,
    attempt_gpu,
    enrolment_token,
    gpu_owner,
    host,
    host_certificate,
    job,
)

_NOT_SEEN_YET = HostFacts(
    hostname="",
    cpu_count=1,
    memory_bytes=0,
    disk_free_bytes=0,
    isolation=Isolation.PROCESS,
    executor="",
    gpus=(),
)
HOST = select(host, account.c.name.label("account_name")).join(account, account.c.id == host.c.account_id)
_IS_DRAINING = (host.c.hold == str(Hold.DRAINING)) | (host.c.hold_under == str(Hold.DRAINING))
_DRAINING = HOST.where(_IS_DRAINING)
_NOTEWORTHY = select(host.c.id).where(
    or_(host.c.state != str(HostState.ONLINE), host.c.revoked_ms.is_not(None))
)
_REFUSED = select(host.c.id, host.c.revoked_ms)
_NOT_LOST = select(
    host.c.id,
    host.c.state,
    host.c.seen_boot_id,
    host.c.seen_boot_ms,
    host.c.seen_wall_ms,
    host.c.revoked_ms,
    _IS_DRAINING.label("is_wanted_back"),
).where(host.c.state != str(HostState.LOST))
# A pass asks this each second: to put a statement together costs more than to run it.
_NOT_LOST_AFTER = (
    _NOT_LOST.where(host.c.id > bindparam("after"))
    .order_by(host.c.id)
    .limit(bindparam("most", type_=Integer))
)


class SqlHosts(SqlClaims):
    def insert_enrolment_token(self, digest: bytes, account_id: str, expires_ms: int) -> None:
        self.connection.execute(
            insert(enrolment_token).values(digest=digest, account_id=account_id, expires_ms=expires_ms)
        )

    def use_enrolment_token(self, digest: bytes, key_digest: bytes, host_id: str, now_ms: int) -> str | None:
        """Used by the first key that brings it, and by no other."""
        token = enrolment_token.c
        self.connection.execute(
            update(enrolment_token)
            .where(token.digest == digest, token.expires_ms > now_ms, token.host_id.is_(None))
            .values(host_id=host_id, key_digest=key_digest)
        )
        return self.connection.execute(
            select(token.host_id).where(
                token.digest == digest, token.expires_ms > now_ms, token.key_digest == key_digest
            )
        ).scalar_one_or_none()

    def insert_host(self, host_id: str, enrolment_digest: bytes, stamp: Stamp) -> None:
        owner = select(enrolment_token.c.account_id).where(enrolment_token.c.digest == enrolment_digest)
        self.connection.execute(
            insert(host).values(
                id=host_id,
                account_id=owner.scalar_subquery(),
                state=str(HostState.LOST),
                reason="enrolled, has not connected yet",
                since_ms=stamp.wall_ms,
                hold=str(Hold.NONE),
                hold_reason="",
                hold_since_ms=stamp.wall_ms,
                reliability_ppm=RELIABILITY_PPM_AT_FIRST,
                facts=facts_to_json(_NOT_SEEN_YET),
                terms=terms_to_json(Terms()),
                seen_boot_id=stamp.boot_id,
                seen_boot_ms=stamp.boot_ms,
                seen_wall_ms=stamp.wall_ms,
            )
        )

    def host(self, host_id: str) -> Host | None:
        row = self.beside.execute(HOST.where(host.c.id == host_id)).mappings().one_or_none()
        return None if row is None else host_from_row(row)

    def hosts(self, host_ids: Sequence[str]) -> dict[str, Host]:
        if not host_ids:
            return {}
        rows = rows_among(self.beside, HOST, host.c.id, host_ids).mappings()
        return {row["id"]: host_from_row(row) for row in rows}

    def hosts_refused(self, host_ids: Sequence[str]) -> dict[str, bool]:
        found = rows_among(self.beside, _REFUSED, host.c.id, host_ids)
        return {row.id: row.revoked_ms is not None for row in found}

    def save_standings(self, seen: Mapping[str, Stamp], reliability_ppm: Mapping[str, int]) -> None:
        if seen:
            was = [{"id": host_id} for host_id in seen]
            update_rows(self.connection, host, was, [_seen(stamp) for stamp in seen.values()])
        if reliability_ppm:
            was = [{"id": host_id} for host_id in reliability_ppm]
            now = [{"reliability_ppm": ppm} for ppm in reliability_ppm.values()]
            update_rows(self.connection, host, was, now)

    def host_ids_of(self, account_id: str, after_id: str, limit: int) -> Sequence[str]:
        query = select(host.c.id).where(host.c.account_id == account_id, host.c.id > after_id)
        return self.connection.execute(query.order_by(host.c.id).limit(limit)).scalars().all()

    def hosts_after(self, host_id: str, limit: int) -> Page[Host]:
        return self.page(HOST, host.c.id, host_id, limit, host_from_row)

    def rooms(self) -> Sequence[HostRoom]:
        return self._rooms(true(), true(), true())

    def rooms_of(self, host_ids: Sequence[str]) -> Sequence[HostRoom]:
        return self._rooms(
            host.c.id.in_(host_ids), gpu_owner.c.host_id.in_(host_ids), attempt.c.host_id.in_(host_ids)
        )

    def _rooms(
        self,
        hosts: ColumnElement[bool],
        owners: ColumnElement[bool],
        attempts: ColumnElement[bool],
    ) -> Sequence[HostRoom]:
        taken = select(attempt_gpu.c.gpu_uuid).join(gpu_owner, gpu_owner.c.gpu_uuid == attempt_gpu.c.gpu_uuid)
        gone = set(self.connection.execute(taken.where(owners)).scalars())
        owner = {
            row.gpu_uuid: row.host_id for row in self.connection.execute(select(gpu_owner).where(owners))
        }
        memory, cpu = self._taken(attempts)
        found = self.connection.execute(HOST.where(hosts).order_by(host.c.id)).mappings()
        return [
            HostRoom(
                host=h,
                free=tuple(
                    gpu for gpu in h.facts.gpus_fit if gpu.uuid not in gone and owner.get(gpu.uuid) == h.id
                ),
                memory_bytes_taken=memory[h.id],
                cpu_milli_taken=cpu[h.id],
            )
            for h in map(host_from_row, found)
        ]

    def _taken(self, attempts: ColumnElement[bool]) -> tuple[Counter[str], Counter[str]]:
        """Memory and processors that live attempts have, by host."""
        memory, cpu = Counter[str](), Counter[str]()
        query = (
            select(attempt.c.host_id, job.c.spec)
            .join(job, job.c.id == attempt.c.job_id)
            .where(ONLY_LIVE_ATTEMPTS, attempts)
        )
        for row in self.connection.execute(query):
            memory[row.host_id] += row.spec["memory_bytes"]
            cpu[row.host_id] += row.spec["cpu_milli"]
        return memory, cpu

    def save_hello(self, host_id: str, facts: HostFacts, terms: Terms) -> Sequence[str]:
        self.beside.execute(
            update(host)
            .where(host.c.id == host_id)
            .values(facts=facts_to_json(facts), terms=terms_to_json(terms))
        )
        return self.own_gpus(host_id, [gpu.uuid for gpu in facts.gpus])

    def save_seen(self, host_id: str, stamp: Stamp) -> None:
        self.save_standings({host_id: stamp}, {})

    def save_all_seen(self, seen: Mapping[str, Stamp]) -> Sequence[str]:
        if not seen:
            return []
        self.save_standings(seen, {})
        return rows_among(self.beside, _NOTEWORTHY, host.c.id, seen).scalars().all()

    def save_link(self, host_id: str, before: HostState, after: HostState, reason: str, now_ms: int) -> bool:
        done = self.beside.execute(
            update(host)
            .where(host.c.id == host_id, host.c.state == str(before))
            .values(state=str(after), reason=reason, since_ms=now_ms)
        )
        return done.rowcount == 1

    def save_hold(self, host_id: str, hold: Hold, reason: str, now_ms: int) -> None:
        distrusted = host.c.hold == str(Hold.QUARANTINED)
        under = {
            "hold_under": case((distrusted, host.c.hold_under), else_=host.c.hold),
            "hold_under_since_ms": case((distrusted, host.c.hold_under_since_ms), else_=host.c.hold_since_ms),
        }
        self.beside.execute(
            update(host)
            .where(host.c.id == host_id)
            .values(
                hold=str(hold),
                hold_reason=reason,
                hold_since_ms=now_ms,
                **(under if hold is Hold.QUARANTINED else dict.fromkeys(under)),
            )
        )

    def lift_quarantine(self, host_id: str, reason: str, now_ms: int) -> None:
        self.beside.execute(
            update(host)
            .where(host.c.id == host_id, host.c.hold == str(Hold.QUARANTINED))
            .values(
                hold=func.coalesce(host.c.hold_under, str(Hold.NONE)),
                hold_reason=reason,
                hold_since_ms=func.coalesce(host.c.hold_under_since_ms, now_ms),
                hold_under=None,
                hold_under_since_ms=None,
            )
        )

    def revoke_host(self, host_id: str, now_ms: int) -> None:
        self.beside.execute(update(host).where(host.c.id == host_id).values(revoked_ms=now_ms))

    def insert_certificate(self, host_id: str, certificate: Certificate, now_ms: int) -> None:
        values = {"host_id": host_id, "issued_ms": now_ms, **vars(certificate)}
        self.connection.execute(insert(host_certificate).values(values))

    def hosts_certified_only_by_others(self, authority_digest: bytes, now_ms: int) -> Sequence[str]:
        of = host_certificate.c
        good = select(of.host_id).where(of.expires_ms > now_ms)
        moved = good.where(of.authority_digest == authority_digest)
        # Of before certificates were noted there is nothing, but they may well be good.
        noted = select(of.host_id)
        query = select(host.c.id).where(
            host.c.revoked_ms.is_(None),
            host.c.id.not_in(moved),
            or_(host.c.id.in_(good), host.c.id.not_in(noted)),
        )
        return self.connection.execute(query.order_by(host.c.id)).scalars().all()

    def save_reliability(self, host_id: str, ppm: int) -> None:
        self.save_standings({}, {host_id: ppm})

    def draining(self, host_ids: Sequence[str]) -> Page[tuple[Host, int]]:
        return self.some(_DRAINING, host.c.id, host_ids, "", _draining_since)

    def hosts_seen(self, after_id: str, limit: int) -> Sequence[Seen]:
        found = self.connection.execute(_NOT_LOST_AFTER, {"after": after_id, "most": limit})
        return [_seen_from(*row) for row in found.all()]

    def host_seen(self, host_id: str) -> Seen | None:
        row = self.connection.execute(_NOT_LOST.where(host.c.id == host_id)).one_or_none()
        return None if row is None else _seen_from(*row)


def _seen_from(
    host_id: str,
    state: str,
    boot_id: str,
    boot_ms: int,
    wall_ms: int,
    revoked_ms: int | None,
    is_draining: bool | None,
) -> Seen:
    return Seen(host_id, LINKS[state], boot_id, boot_ms, wall_ms, revoked_ms is not None, bool(is_draining))


def _seen(stamp: Stamp) -> Json:
    return {
        "seen_boot_id": stamp.boot_id,
        "seen_boot_ms": stamp.boot_ms,
        "seen_wall_ms": stamp.wall_ms,
    }


def host_from_row(row: Row) -> Host:
    link, hold = HostState(row["state"]), Hold(row["hold"])
    held = host_state(link, hold) is not link
    return Host(
        id=row["id"],
        account_id=row["account_id"],
        account_name=row["account_name"],
        state=host_state(link, hold),
        link=link,
        hold=hold,
        hold_under=Hold(row["hold_under"] or Hold.NONE),
        reason=row["hold_reason"] if held else row["reason"],
        since_ms=row["hold_since_ms"] if held else row["since_ms"],
        revoked_ms=row["revoked_ms"] or 0,
        reliability_ppm=row["reliability_ppm"],
        facts=facts_from_json(row["facts"]),
        terms=terms_from_json(row["terms"]),
    )


def _draining_since(row: Row) -> tuple[Host, int]:
    draining = row["hold"] == str(Hold.DRAINING)
    return host_from_row(row), row["hold_since_ms"] if draining else row["hold_under_since_ms"]
