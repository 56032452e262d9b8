"""Accounts and hosts of the market in memory: the store's verbs in plain Python."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from coordinator.domain.account import ALL_SCOPES, Account, Bearer, Scope, Token, token_name
from coordinator.domain.act import Act
from coordinator.domain.host import Certificate, Hold, Host, HostFacts, HostRoom, HostState, Isolation, Terms
from coordinator.domain.job import Attempt, Job
from coordinator.domain.metering import Stamp
from coordinator.domain.standing import host_state
from coordinator.domain.states import ATTEMPT_LIVE
from coordinator.store.ports_hosts import Page, Seen

_NOTHING = HostFacts(
    hostname="",
    cpu_count=1,
    memory_bytes=0,
    disk_free_bytes=0,
    isolation=Isolation.PROCESS,
    executor="",
    gpus=(),
)


@dataclass(kw_only=True)
class _Host:
    id: str
    account_id: str
    seen: Stamp
    link: HostState = HostState.LOST
    reason: str = "enrolled, has not connected yet"
    since_ms: int
    hold: Hold = Hold.NONE
    hold_reason: str = ""
    hold_since_ms: int
    hold_under: Hold | None = None
    hold_under_since_ms: int = 0
    facts: HostFacts = _NOTHING
    terms: Terms = field(default_factory=Terms)
    reliability_ppm: int = 900_000
    revoked_ms: int = 0


@dataclass(kw_only=True)
class _Token:
    digest: bytes
    account_id: str
    label: str
    created_ms: int
    expires_ms: int
    scopes: frozenset[Scope] = ALL_SCOPES
    revoked_ms: int = 0
    last_used_ms: int = 0

    def is_good(self, now_ms: int) -> bool:
        return self.expires_ms > now_ms and not self.revoked_ms

    def named(self) -> Token:
        return Token(
            id=token_name(self.digest),
            label=self.label,
            created_ms=self.created_ms,
            expires_ms=self.expires_ms,
            revoked_ms=self.revoked_ms,
            scopes=self.scopes,
            last_used_ms=self.last_used_ms,
        )


class MemoryAccounts:
    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}
        self._tokens: dict[bytes, _Token] = {}
        self._acts: list[Act] = []
        self._answers: dict[tuple[str, str], tuple[bytes, str]] = {}

    def insert_account(self, account: Account, now_ms: int) -> bool:
        if self.account_named(account.name) is not None:
            return False
        self._accounts[account.id] = account
        return True

    def account(self, account_id: str) -> Account | None:
        return self._accounts.get(account_id)

    def account_named(self, name: str) -> Account | None:
        return next((one for one in self._accounts.values() if one.name == name), None)

    def accounts_after(self, name: str, limit: int) -> Sequence[Account]:
        found = sorted((one for one in self._accounts.values() if one.name > name), key=lambda one: one.name)
        return found[:limit]

    def insert_token(
        self,
        digest: bytes,
        account_id: str,
        now_ms: int,
        expires_ms: int,
        label: str = "",
        scopes: frozenset[Scope] = ALL_SCOPES,
    ) -> None:
        self._tokens[digest] = _Token(
            digest=digest,
            account_id=account_id,
            label=label,
            created_ms=now_ms,
            expires_ms=expires_ms,
            scopes=scopes,
        )

    def bearer(self, digest: bytes, now_ms: int) -> Bearer | None:
        token = self._tokens.get(digest)
        if token is None or not token.is_good(now_ms):
            return None
        account = self._accounts[token.account_id]
        return Bearer(
            account=account, token_id=token_name(digest), expires_ms=token.expires_ms, scopes=token.scopes
        )

    def save_token_uses(self, used: Mapping[bytes, int]) -> None:
        for digest, used_ms in used.items():
            if digest in self._tokens:
                self._tokens[digest].last_used_ms = max(used_ms, self._tokens[digest].last_used_ms)

    def tokens_before(
        self, account_id: str, good_at_ms: int | None, before: tuple[int, str] | None, limit: int
    ) -> Sequence[Token]:
        mine = [one for one in self._tokens.values() if one.account_id == account_id]
        mine.sort(key=lambda one: (one.created_ms, one.digest), reverse=True)
        return [
            one.named()
            for one in mine
            if (good_at_ms is None or one.is_good(good_at_ms))
            and (before is None or (one.created_ms, token_name(one.digest)) < before)
        ][:limit]

    def revoke_token(self, account_id: str, token_id: str, now_ms: int) -> Token | None:
        for one in self._tokens.values():
            if (one.account_id, token_name(one.digest)) == (account_id, token_id):
                one.revoked_ms = one.revoked_ms or now_ms
                return one.named()
        return None

    def append_acts(self, acts: Sequence[Act]) -> None:
        self._acts += acts

    def acts_before(self, who: str, since_ms: int, before_id: str, limit: int) -> Sequence[Act]:
        return [
            one
            for one in sorted(self._acts, key=lambda one: one.id, reverse=True)
            if one.happened_ms >= since_ms and who in {"", one.who} and (not before_id or one.id < before_id)
        ][:limit]

    def recall(self, account_id: str, request_id: str) -> tuple[bytes, str] | None:
        return self._answers.get((account_id, request_id))

    def remember(self, account_id: str, request_id: str, fingerprint: bytes, answer: str) -> None:
        assert (account_id, request_id) not in self._answers, "an answer stands for ever"
        self._answers[account_id, request_id] = fingerprint, answer

    def recall_all(self, asked: Sequence[tuple[str, str]]) -> dict[tuple[str, str], tuple[bytes, str]]:
        return {key: self._answers[key] for key in asked if key in self._answers}

    def remember_all(self, answers: Sequence[tuple[str, str, bytes, str]]) -> None:
        for answer in answers:
            self.remember(*answer)


class MemoryHosts(MemoryAccounts):
    _jobs: dict[str, Job]
    _attempts: dict[str, Attempt]

    def __init__(self) -> None:
        super().__init__()
        self._hosts: dict[str, _Host] = {}
        # By digest: whose it is, until when, and the host and key of its one use.
        self._enrolments: dict[bytes, tuple[str, int, tuple[str, bytes] | None]] = {}
        self._gpu_owners: dict[str, str] = {}
        self._certificates: list[tuple[str, Certificate]] = []

    def insert_enrolment_token(self, digest: bytes, account_id: str, expires_ms: int) -> None:
        self._enrolments[digest] = account_id, expires_ms, None

    def use_enrolment_token(self, digest: bytes, key_digest: bytes, host_id: str, now_ms: int) -> str | None:
        account_id, expires_ms, use = self._enrolments.get(digest, ("", 0, None))
        if expires_ms <= now_ms:
            return None
        use = use or (host_id, key_digest)
        self._enrolments[digest] = account_id, expires_ms, use
        return use[0] if use[1] == key_digest else None

    def insert_host(self, host_id: str, enrolment_digest: bytes, stamp: Stamp) -> None:
        self._hosts[host_id] = _Host(
            id=host_id,
            account_id=self._enrolments[enrolment_digest][0],
            seen=stamp,
            since_ms=stamp.wall_ms,
            hold_since_ms=stamp.wall_ms,
        )

    def host(self, host_id: str) -> Host | None:
        row = self._hosts.get(host_id)
        return None if row is None else self._host_of(row)

    def hosts(self, host_ids: Sequence[str]) -> dict[str, Host]:
        return {id_: self._host_of(self._hosts[id_]) for id_ in host_ids if id_ in self._hosts}

    def hosts_after(self, host_id: str, limit: int) -> Page[Host]:
        found = [self._host_of(self._hosts[id_]) for id_ in sorted(self._hosts) if id_ > host_id]
        return Page(rows=found[:limit], broken={}, last=found[limit - 1].id if len(found) > limit else "")

    def host_ids_of(self, account_id: str, after_id: str, limit: int) -> Sequence[str]:
        return [
            id_ for id_ in sorted(self._hosts) if self._hosts[id_].account_id == account_id and id_ > after_id
        ][:limit]

    def _host_of(self, row: _Host) -> Host:
        state = host_state(row.link, row.hold)
        held = state is not row.link
        return Host(
            id=row.id,
            account_id=row.account_id,
            account_name=self._accounts[row.account_id].name,
            state=state,
            link=row.link,
            hold=row.hold,
            hold_under=row.hold_under or Hold.NONE,
            reason=row.hold_reason if held else row.reason,
            since_ms=row.hold_since_ms if held else row.since_ms,
            facts=row.facts,
            terms=row.terms,
            reliability_ppm=row.reliability_ppm,
            revoked_ms=row.revoked_ms,
        )

    def own_gpus(self, host_id: str, gpu_uuids: Sequence[str]) -> Sequence[str]:
        return [uuid for uuid in gpu_uuids if self._gpu_owners.setdefault(uuid, host_id) != host_id]

    def rooms(self) -> Sequence[HostRoom]:
        return self.rooms_of(list(self._hosts))

    def rooms_of(self, host_ids: Sequence[str]) -> Sequence[HostRoom]:
        return [self._room(self._hosts[id_]) for id_ in sorted(host_ids)]

    def _room(self, row: _Host) -> HostRoom:
        live = [one for one in self._attempts.values() if one.state in ATTEMPT_LIVE]
        taken = {gpu.uuid for one in live for gpu in one.gpus}
        specs = [self._jobs[one.job_id].spec for one in live if one.host_id == row.id]
        return HostRoom(
            host=self._host_of(row),
            free=tuple(
                gpu
                for gpu in row.facts.gpus_fit
                if gpu.uuid not in taken and self._gpu_owners.get(gpu.uuid) == row.id
            ),
            memory_bytes_taken=sum(spec.memory_bytes for spec in specs),
            cpu_milli_taken=sum(spec.cpu_milli for spec in specs),
        )

    def save_hello(self, host_id: str, facts: HostFacts, terms: Terms) -> Sequence[str]:
        row = self._hosts[host_id]
        row.facts, row.terms = facts, terms
        return self.own_gpus(host_id, [gpu.uuid for gpu in facts.gpus])

    def save_seen(self, host_id: str, stamp: Stamp) -> None:
        self._hosts[host_id].seen = stamp

    def save_all_seen(self, seen: Mapping[str, Stamp]) -> Sequence[str]:
        for host_id, stamp in seen.items():
            self.save_seen(host_id, stamp)
        rows = [self._hosts[host_id] for host_id in sorted(seen)]
        return [row.id for row in rows if row.link is not HostState.ONLINE or row.revoked_ms]

    def revoke_host(self, host_id: str, now_ms: int) -> None:
        self._hosts[host_id].revoked_ms = now_ms

    def insert_certificate(self, host_id: str, certificate: Certificate, now_ms: int) -> None:
        self._certificates.append((host_id, certificate))

    def hosts_certified_only_by_others(self, authority_digest: bytes, now_ms: int) -> Sequence[str]:
        noted = {host_id for host_id, _ in self._certificates}
        good = [(host_id, one) for host_id, one in self._certificates if one.expires_ms > now_ms]
        moved = {host_id for host_id, one in good if one.authority_digest == authority_digest}
        return [
            id_
            for id_, row in sorted(self._hosts.items())
            if not row.revoked_ms and id_ not in moved and (id_ in dict(good) or id_ not in noted)
        ]

    def save_link(self, host_id: str, before: HostState, after: HostState, reason: str, now_ms: int) -> bool:
        row = self._hosts[host_id]
        if row.link is not before:
            return False
        row.link, row.reason, row.since_ms = after, reason, now_ms
        return True

    def save_hold(self, host_id: str, hold: Hold, reason: str, now_ms: int) -> None:
        row = self._hosts[host_id]
        if hold is not Hold.QUARANTINED:
            row.hold_under = None
        elif row.hold is not Hold.QUARANTINED:
            row.hold_under, row.hold_under_since_ms = row.hold, row.hold_since_ms
        row.hold, row.hold_reason, row.hold_since_ms = hold, reason, now_ms

    def lift_quarantine(self, host_id: str, reason: str, now_ms: int) -> None:
        row = self._hosts[host_id]
        if row.hold is Hold.QUARANTINED:
            row.hold_since_ms = now_ms if row.hold_under is None else row.hold_under_since_ms
            row.hold, row.hold_under = row.hold_under or Hold.NONE, None
            row.hold_reason = reason

    def save_reliability(self, host_id: str, ppm: int) -> None:
        self._hosts[host_id].reliability_ppm = ppm

    def draining(self, host_ids: Sequence[str]) -> Page[tuple[Host, int]]:
        rows = [
            (
                self._host_of(row),
                row.hold_since_ms if row.hold is Hold.DRAINING else row.hold_under_since_ms,
            )
            for row in map(self._hosts.__getitem__, host_ids)
            if Hold.DRAINING in {row.hold, row.hold_under}
        ]
        return Page(rows=rows, broken={}, last="")

    def hosts_refused(self, host_ids: Sequence[str]) -> dict[str, bool]:
        return {id_: bool(self._hosts[id_].revoked_ms) for id_ in host_ids if id_ in self._hosts}

    def hosts_seen(self, after_id: str, limit: int) -> Sequence[Seen]:
        found = (self.host_seen(id_) for id_ in sorted(self._hosts) if id_ > after_id)
        return [seen for seen in found if seen is not None][:limit]

    def host_seen(self, host_id: str) -> Seen | None:
        row = self._hosts.get(host_id)
        if row is None or row.link is HostState.LOST:
            return None
        is_wanted_back = Hold.DRAINING in {row.hold, row.hold_under}
        boot_id, boot_ms, wall_ms = row.seen.boot_id, row.seen.boot_ms, row.seen.wall_ms
        return Seen(row.id, row.link, boot_id, boot_ms, wall_ms, bool(row.revoked_ms), is_wanted_back)
