"""Taking jobs in: many orders at once, each answered for itself."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from coordinator.domain.account import Account
from coordinator.domain.act import Act
from coordinator.domain.cap import Month, month_of
from coordinator.domain.event import EventKind, NewEvent
from coordinator.domain.job import Job, JobSpec, Origin
from coordinator.domain.refusal import Refusal
from coordinator.domain.states import Cause, JobState
from coordinator.services.caps import notice, over, used_micro
from coordinator.services.jobs import JobView, owned_job, too_little
from coordinator.services.requests import fingerprint, reused
from coordinator.services.vault import Sealed
from coordinator.store.ports import Transaction
from coordinator.store.ports_books import hold_id
from ledger.entries import hold
from runtime.ids import new_id


@dataclass(frozen=True, kw_only=True)
class Order:
    buyer: Account
    request_id: str
    spec: JobSpec
    now_ms: int
    # Where the spec is confidential.
    sealed: Sealed | None = None
    # For the log of acts.
    act: Act | None = None
    # In the trace of its request.
    traceparent: str = ""

    @property
    def key(self) -> tuple[str, str]:
        return self.buyer.id, self.request_id


def submits(tx: Transaction, given: Sequence[Order]) -> list[JobView | Refusal]:
    """A job and its hold are one commit: a job exists if and only if its money does.

    Why no host has it nobody knows yet: it has not been looked at. To ask all hosts here, in the writer's
    thread, would hold up everybody.
    """
    known = dict(tx.recall_all(list({order.key for order in given})))
    buyers = sorted({order.buyer.id for order in given})
    wallets, caps = dict(tx.wallets(buyers)), _Caps(tx, buyers)
    made: dict[str, Job] = {}
    answers: list[JobView | Refusal] = []
    fresh: list[tuple[Order, bytes, Job]] = []
    for order in given:
        content = _content(order.spec, order.sealed.digest if order.sealed else None)
        before = known.get(order.key)
        if before is not None:
            answers.append(_again(tx, order, content, before, made))
            continue
        if wallets[order.buyer.id] < order.spec.budget_micro:
            answers.append(too_little(wallets[order.buyer.id], "spec.budget_micro"))
            continue
        refused = caps.refuses(order)
        if refused is not None:
            answers.append(refused)
            continue
        job = _job(order)
        wallets[order.buyer.id] -= order.spec.budget_micro
        known[order.key] = content, job.id
        made[job.id] = job
        fresh.append((order, content, job))
        answers.append(JobView(job=job, attempts=(), notices=caps.count(order)))
    if fresh:
        _take_in(tx, fresh)
    return answers


class _Caps:
    """The spending caps of these buyers, and what they have used, with what is being taken in."""

    def __init__(self, tx: Transaction, buyers: Sequence[str]) -> None:
        self._tx = tx
        self._caps = tx.caps(buyers)
        # By buyer and month.
        self._used: dict[tuple[str, Month], int] = {}

    def refuses(self, order: Order) -> Refusal | None:
        cap = self._caps.get(order.buyer.id)
        if cap is None:
            return None
        month = month_of(order.now_ms)
        key = order.buyer.id, month
        if key not in self._used:
            self._used[key] = used_micro(self._tx, *key)
        if self._used[key] + order.spec.budget_micro <= cap.month_micro:
            return None
        return over(cap, self._used[key], month, "spec.budget_micro")

    def count(self, order: Order) -> Sequence[str]:
        """One that was not refused; what its buyer is to be told."""
        cap = self._caps.get(order.buyer.id)
        if cap is None:
            return ()
        key = order.buyer.id, month_of(order.now_ms)
        self._used[key] += order.spec.budget_micro
        return (notice(cap, self._used[key], key[1]),) if cap.warns(self._used[key]) else ()


def _again(
    tx: Transaction, order: Order, content: bytes, before: tuple[bytes, str], made: dict[str, Job]
) -> JobView | Refusal:
    """The same id with the same content changes nothing more."""
    known_content, job_id = before
    older = order.sealed.digests_before if order.sealed else ()
    if known_content != content and known_content not in [_content(order.spec, each) for each in older]:
        return reused(order.request_id)
    if job_id in made:
        return JobView(job=made[job_id], attempts=())
    return JobView(job=owned_job(tx, order.buyer, job_id), attempts=tx.attempts_of_jobs([job_id])[job_id])


def _content(spec: JobSpec, digest: bytes | None) -> bytes:
    return fingerprint("submit", *parts(spec), *(() if digest is None else (digest.hex(),)))


def _job(order: Order) -> Job:
    return Job(
        id=new_id("job"),
        account_id=order.buyer.id,
        account_name=order.buyer.name,
        spec=order.spec,
        state=JobState.QUEUED,
        cause=None,
        detail="waits for a host",
        submitted_ms=order.now_ms,
        queued_ms=order.now_ms,
        ended_ms=0,
        charged_micro=0,
        retries_used=0,
        exit_code=None,
        origin=Origin(request_id=order.act.request_id if order.act else "", traceparent=order.traceparent),
    )


def _take_in(tx: Transaction, fresh: Sequence[tuple[Order, bytes, Job]]) -> None:
    now_ms = max(order.now_ms for order, _, _ in fresh)
    holds = [
        hold(
            transfer_id=hold_id(job.id),
            account_id=job.account_id,
            job_id=job.id,
            amount_micro=job.spec.budget_micro,
            event_ms=order.now_ms,
        )
        for order, _, job in fresh
    ]
    events = [
        NewEvent(
            kind=EventKind.SUBMITTED,
            job_id=job.id,
            text="the job was taken in and its budget is held",
            job_state=JobState.QUEUED,
            cause=Cause.BUYER,
        )
        for _, _, job in fresh
    ]
    tx.post_surely(holds, now_ms)
    tx.insert_jobs([job for _, _, job in fresh])
    boxes = {job.id: order.sealed.box for order, _, job in fresh if order.sealed}
    if boxes:
        tx.insert_sealed(boxes)
    tx.append_events(events, now_ms)
    tx.remember_all([(*order.key, content, job.id) for order, content, job in fresh])
    tx.append_acts([order.act for order, _, _ in fresh if order.act is not None])
    tx.wake(*(job.id for _, _, job in fresh))


def parts(spec: JobSpec) -> list[object]:
    """Every field of the order, so that no two orders look the same. A test holds it to the fields."""
    host = replace(spec.host, labels={})
    return [
        spec.name,
        spec.image,
        *spec.command,
        len(spec.command),
        *sorted(spec.env.items()),
        spec.gpus,
        int(spec.isolation_min),
        spec.gpu_hour_price_micro_max,
        spec.budget_micro,
        spec.run_ms_max,
        spec.stop_grace_ms,
        spec.retries_max,
        spec.queue_ms_max,
        spec.memory_bytes,
        spec.cpu_milli,
        host,
        *sorted(spec.host.labels.items()),
        spec.policy,
        spec.priority,
        spec.on_host_loss,
        *sorted(spec.labels.items()),
        spec.note,
        int(spec.network),
        *spec.network_destinations,
        len(spec.network_destinations),
        *spec.secret_names,
        len(spec.secret_names),
        spec.has_registry_credential,
    ]
