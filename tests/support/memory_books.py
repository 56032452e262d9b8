"""What was paid and earned, in plain Python: what was posted, in order, and what can be read from it."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from coordinator.domain.account import Balances
from coordinator.domain.cap import SpendingCap
from coordinator.domain.credit import Refund
from coordinator.domain.job import Attempt, Job
from coordinator.domain.states import ATTEMPT_LIVE, JOB_LIVE, AttemptState, JobState
from coordinator.store.ports_books import Vitals, hold_id
from ledger.book import AccountNotFoundError
from ledger.entries import Leg, Outcome, Statement, Status, Transfer, TransferKind
from tests.support.ledger_model import Model
from tests.support.memory_usage import MemoryUsage


class MemoryBooks(MemoryUsage):
    """The ledger is the model that its own tests hold it against."""

    def __init__(self) -> None:
        super().__init__()
        self._model = Model()
        # What was posted and when; its number is its place, from 1.
        self._posted: list[tuple[Transfer, int]] = []
        self._opened: set[str] = set()
        self._sealed_to = 0
        self._caps: dict[str, SpendingCap] = {}

    # Money

    def open_accounts(self, codes: Sequence[str], now_ms: int) -> None:
        self._opened |= set(codes)

    def post(self, transfers: Sequence[Transfer], now_ms: int) -> Sequence[Outcome]:
        outcomes = [
            Outcome(transfer.id, Status(self._model.expect(transfer)), posted_ms=now_ms)
            for transfer in transfers
        ]
        for transfer, outcome in zip(transfers, outcomes, strict=True):
            if outcome.status is Status.POSTED:
                self._posted.append((transfer, now_ms))
                self._opened |= {transfer.debit, transfer.credit}
        return outcomes

    def post_surely(self, transfers: Sequence[Transfer], now_ms: int) -> None:
        for outcome in self.post(transfers, now_ms):
            assert outcome.ok, outcome

    def open_jobs(self) -> dict[str, int]:
        return Counter(job.account_id for job in self._jobs.values() if job.state in JOB_LIVE)

    def output_bytes(self) -> dict[str, int]:
        stored = Counter[str]()
        for attempt_id, chunks in self._output.items():
            job = self._jobs[self._attempts[attempt_id].job_id]
            stored[job.account_id] += sum(len(chunk.data) for chunk, _ in chunks)
        return dict(stored)

    def wallets(self, account_ids: Sequence[str]) -> dict[str, int]:
        return {id_: self._model.wallets[id_] for id_ in account_ids}

    def balances(self, account_ids: Sequence[str]) -> dict[str, Balances]:
        return {
            id_: Balances(
                wallet_micro=self._model.wallets[id_],
                held_micro=sum(
                    job.spec.budget_micro - job.charged_micro
                    for job in self._jobs.values()
                    if job.account_id == id_ and job.state in JOB_LIVE
                ),
                earnings_micro=self._model.earned[id_],
            )
            for id_ in account_ids
        }

    def trial_balance(self) -> Sequence[tuple[str, int]]:
        model = self._model
        return [
            ("wallet", sum(model.wallets.values())),
            ("hold", sum(budget.left for budget in model.budgets.values())),
            ("earnings", sum(model.earned.values())),
            ("fee", model.fee),
            ("payouts", model.paid_out),
            ("issuance", -model.issued),
            ("adjustments", -model.adjusted),
        ]

    def audit(self) -> tuple[list[str], int]:
        broken = self._model.total() != self._model.issued + self._model.adjusted
        return ["the books do not balance"] if broken else [], len(self._posted)

    def seal(self, now_ms: int) -> tuple[int, bytes] | None:
        if self._sealed_to == len(self._posted):
            return None
        self._sealed_to = len(self._posted)
        return self._sealed_to, hashlib.sha256(repr(self._posted).encode()).digest()

    def unreleased(self, after_job_id: str, limit: int) -> tuple[Sequence[tuple[Job, int]], str]:
        ended = [job for id_, job in sorted(self._jobs.items()) if id_ > after_job_id and job.is_over][:limit]
        budgets = self._model.budgets
        held = [(job, budgets[job.id].left) for job in ended if job.id in budgets and budgets[job.id].left]
        return held, ended[-1].id if ended else ""

    # Books

    def statement(self, code: str, after_seq: int, limit: int, since_ms: int, until_ms: int) -> Statement:
        if code not in self._opened:
            raise AccountNotFoundError(f"no account {code}")
        legs = list(self._legs(code))
        first = [leg for leg in legs if leg.posted_ms >= since_ms and leg.seq > after_seq]
        page = [leg for leg in first if leg.posted_ms < until_ms]
        before = sum(leg.delta_micro for leg in legs[: len(legs) - len(first)])
        shown = tuple(page[:limit])
        return Statement(
            code=code,
            opening_micro=before,
            closing_micro=before + sum(leg.delta_micro for leg in shown),
            legs=shown,
            next_after_seq=shown[-1].seq if len(page) > limit else None,
        )

    def _legs(self, code: str) -> Iterable[Leg]:
        number, balance_micro = 0, 0
        for seq, (transfer, posted_ms) in enumerate(self._posted, start=1):
            deltas = Counter[str]()
            deltas[transfer.debit] -= transfer.amount_micro
            deltas[transfer.credit] += transfer.amount_micro - transfer.fee_micro
            if transfer.fee_account is not None:
                deltas[transfer.fee_account] += transfer.fee_micro
            if code not in deltas:
                continue
            number, balance_micro = number + 1, balance_micro + deltas[code]
            yield Leg(
                seq=seq,
                transfer_id=transfer.id,
                kind=transfer.kind,
                account_seq=number,
                delta_micro=deltas[code],
                balance_micro=balance_micro,
                ref=transfer.ref,
                reason=transfer.reason,
                event_ms=transfer.event_ms,
                posted_ms=posted_ms,
            )

    def jobs_taken_in(
        self, account_id: str, since_ms: int, until_ms: int, before_id: str, limit: int
    ) -> Sequence[Job]:
        found = self.jobs_of(account_id, live_only=False, before_id=before_id, limit=len(self._jobs))
        return [job for job in found if since_ms <= job.submitted_ms < until_ms][:limit]

    def attempts_sold(
        self,
        seller_account_id: str,
        since_ms: int,
        until_ms: int,
        before_id: str,
        limit: int,
        host_id: str = "",
    ) -> Sequence[Attempt]:
        return [
            one
            for _, one in sorted(self._attempts.items(), reverse=True)
            if one.seller_account_id == seller_account_id
            and since_ms <= one.meter.assigned.wall_ms < until_ms
            and (not before_id or one.id < before_id)
            and host_id in {"", one.host_id}
        ][:limit]

    def caps(self, account_ids: Sequence[str]) -> dict[str, SpendingCap]:
        return {id_: self._caps[id_] for id_ in account_ids if id_ in self._caps}

    def save_cap(self, account_id: str, cap: SpendingCap | None) -> None:
        self._caps.pop(account_id, None)
        if cap is not None:
            self._caps[account_id] = cap

    def spent(self, account_ids: Sequence[str], since_ms: int, until_ms: int) -> Mapping[str, int]:
        spent = Counter[str]()
        for job in self._jobs.values():
            if job.account_id in account_ids and since_ms <= job.submitted_ms < until_ms:
                spent[job.account_id] += job.charged_micro if job.is_over else job.spec.budget_micro
                attempts = self.attempts_of_jobs([job.id])[job.id] if job.is_over else []
                for back in self.credits_of([one.id for one in attempts]).values():
                    spent[job.account_id] -= sum(one.earning_micro + one.fee_micro for one, _, _ in back)
        return dict(spent)

    def refunds_of(self, job_ids: Sequence[str]) -> dict[str, list[Refund]]:
        found: dict[str, list[Refund]] = {job_id: [] for job_id in job_ids}
        for transfer, posted_ms in self._posted:
            is_refund = transfer.kind is TransferKind.ADJUSTMENT and transfer.ref in found
            if is_refund and transfer.corrects == hold_id(transfer.ref):
                found[transfer.ref].append(
                    Refund(
                        transfer_id=str(transfer.id),
                        amount_micro=transfer.amount_micro,
                        reason=transfer.reason,
                        given_ms=posted_ms,
                    )
                )
        return found

    def vitals(self) -> Vitals:
        live = [job for job in self._jobs.values() if not job.is_over]
        queued = [job.queued_ms for job in live if job.state is JobState.QUEUED]
        live_attempts = [one for one in self._attempts.values() if one.state in ATTEMPT_LIVE]
        running = [one for one in live_attempts if one.state in (AttemptState.RUNNING, AttemptState.STOPPING)]
        return Vitals(
            database="memory",
            jobs=Counter(job.state for job in live),
            queued_since_ms=min(queued, default=0),
            gpus_sold=sum(len(one.gpus) for one in live_attempts),
            settlement_lag_ms=max(
                (one.run_ms_reported - one.meter.usage_end_ms for one in running), default=0
            ),
            transfers=len(self._posted),
            transfers_sealed=self._sealed_to,
            database_bytes=0,
            wal_bytes=0,
        )
