"""Every pass may die at any statement and be done again: nothing is done by halves, and nothing twice."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest
from sqlalchemy import Connection, Engine, event, text

from coordinator.domain.account import Role
from coordinator.domain.claim import OWNER_MS
from coordinator.domain.host import Hold, HostState, Terms
from coordinator.domain.metering import Stamp
from coordinator.domain.states import AttemptState, JobState
from coordinator.services import accounts, audit, enrolment, gathered, gpus, reap, submit, upkeep
from coordinator.services.dispatch import Dispatcher
from coordinator.services.mint import digest_of
from coordinator.services.synchronize import Report, beat, hello
from coordinator.store.ports import Transaction
from coordinator.store.unit import UnitTransaction
from ledger.chart import ADJUSTMENTS, FEE, ISSUANCE, PAYOUTS, SUSPENSE
from ledger.entries import hold
from runtime.evidence import chain_start, make_record
from runtime.ids import derived_uuid, new_uuid
from tests.support.values import MODEL, at, gpu, room, spec

WINDOW_MS, BEAT_MS, FEE_PPM = 60_000, 1_000, 50_000
STARTED = at(0)
LATER = at(3 * WINDOW_MS)


class Died(Exception):  # noqa: N818 - it is not the program's
    """The process was killed here."""


@dataclass(frozen=True)
class Pass:
    """What is done, and what must be true of the market when it was."""

    do: Callable[[Transaction], object]
    done: Callable[[Connection], bool]


def count(query: str, wanted: int) -> Callable[[Connection], bool]:
    return lambda connection: connection.execute(text(query)).scalar_one() == wanted


def usage(tx: Transaction) -> object:
    (attempt,) = tx.attempts_on_host(host_of(tx, "running"))
    start = chain_start(attempt.id, 1)
    first = make_record(start, 1, 0, 5_000, ())
    return gathered.usages(
        tx,
        [
            [
                gathered.Usage(
                    host_id=attempt.host_id,
                    boot_id="boot",
                    attempt_id=attempt.id,
                    epoch=1,
                    records=[first, make_record(first.digest, 2, 5_000, 9_000, ())],
                    window_ms=WINDOW_MS,
                    now=at(20_000),
                )
            ]
        ],
    )


def dispatched(tx: Transaction, now: Stamp) -> None:
    """What is waiting gets a host, by a coordinator that has just begun."""
    dispatcher = Dispatcher(lambda: now, FEE_PPM, WINDOW_MS, lambda _: None)
    dispatcher.look(tx)
    while dispatcher.looks_again:
        dispatcher.look(tx)


def reaped(tx: Transaction, now: Stamp) -> None:
    rules = reap.Rules(started=STARTED, beat_interval_ms=BEAT_MS, window_ms=WINDOW_MS)
    for due in reap.find(tx, rules, reap.Place(), {}, now).due:
        reap.act(tx, due, rules, {}, now)


PASSES = {
    "schedule": Pass(
        lambda tx: dispatched(tx, at(20_000)),
        count("SELECT count(*) FROM attempt WHERE state = 'assigned'", 2),
    ),
    "expire": Pass(
        lambda tx: dispatched(tx, replace(LATER, wall_ms=10**12)),
        count("SELECT count(*) FROM job WHERE state = 'expired'", 1),
    ),
    "settle": Pass(usage, count("SELECT count(*) FROM bill_line", 2)),
    "reap": Pass(
        lambda tx: reaped(tx, LATER),
        count("SELECT count(*) FROM host WHERE state <> 'lost'", 0),
    ),
    "orphans": Pass(
        lambda tx: upkeep.orphans_once(tx, LATER),
        count("SELECT count(*) FROM attempt WHERE end_reason = 'host_lost'", 1),
    ),
    "overdue": Pass(
        lambda tx: upkeep.overdue_once(
            tx, STARTED, WINDOW_MS, "", at(upkeep.PREPARING_MS_MAX + 10**9 + WINDOW_MS)
        ),
        count("SELECT count(*) FROM attempt WHERE stop_reason = 'time_limit'", 1),
    ),
    "leftovers": Pass(
        lambda tx: upkeep.leftovers_once(tx, "", LATER),
        count("SELECT count(*) FROM event WHERE text LIKE '%were still held%'", 1),
    ),
    "claims": Pass(
        lambda tx: gpus.pass_once(tx, LATER.wall_ms + OWNER_MS), count("SELECT count(*) FROM gpu_claim", 0)
    ),
}


def host_of(tx: Transaction, name: str) -> str:
    found = next(r.host.id for r in tx.rooms() if r.host.facts.hostname == name)
    assert isinstance(found, str)
    return found


def enrolled(tx: UnitTransaction, seller: str, name: str, *uuids: str) -> str:
    """A host of the seller's that has said hello."""
    tx.insert_enrolment_token(digest_of(name), seller, 10**15)
    host_id = enrolment.enroll(tx, name, digest_of(name), STARTED)
    facts = replace(room(name, *map(gpu, uuids)).host.facts, hostname=name)
    hello(tx, host_id, facts, Terms(prices={MODEL: 3_600_000}), STARTED)
    return host_id


def populate(tx: UnitTransaction) -> None:
    """Something to do for each pass."""
    tx.open_accounts([ISSUANCE, PAYOUTS, ADJUSTMENTS, SUSPENSE, FEE], 1)
    buyer = accounts.create_account(tx, "init", "r1", "buyer", frozenset({Role.BUYER}), 1)
    accounts.credit(tx, "init", "r2", "buyer", 10**9, "", 1)
    sellers = [
        accounts.create_account(tx, "init", f"s{n}", f"seller{n}", frozenset({Role.SELLER}), 1).id
        for n in range(2)
    ]

    def order(**changes: object) -> None:
        wanted = spec(**{"budget_micro": 10**8, "run_ms_max": 10**9, "retries_max": 1, **changes})
        made = submit.Order(buyer=buyer, request_id=str(new_uuid()), spec=wanted, now_ms=STARTED.wall_ms)
        submit.submits(tx, [made])

    running = enrolled(tx, sellers[0], "running", "GPU-running")
    order()
    dispatched(tx, STARTED)
    (attempt,) = tx.attempts_on_host(running)
    for moment in (1_000, 11_000):
        report = Report(
            attempt_id=attempt.id,
            epoch=1,
            state=AttemptState.RUNNING,
            container_id="c",
            run_ms=max(0, moment - 1_000),
        )
        beat(tx, running, "boot", [report], WINDOW_MS, at(moment))
    orphaned = enrolled(tx, sellers[0], "orphaned", "GPU-orphaned")
    order()
    dispatched(tx, at(12_000))
    # A free host, a job for it and one that nobody can take; a claim whose owner is long lost.
    lost = enrolled(tx, sellers[0], "lost", "GPU-lost")
    tx.save_link(lost, HostState.ONLINE, HostState.LOST, "silent", at(12_000).wall_ms)
    enrolled(tx, sellers[1], "free", "GPU-free", "GPU-lost")
    tx.save_link(orphaned, HostState.ONLINE, HostState.LOST, "at the same time", at(12_000).wall_ms)
    order()
    order(queue_ms_max=10**9, gpus=replace(spec().gpus, count=9))
    left_over(tx, buyer.id)
    tx.flush()


def left_over(tx: UnitTransaction, buyer_id: str) -> None:
    """A job that has ended and still holds money, as no code of ours leaves one."""
    connection, job_id = tx.connection, "job_0"
    query = text("SELECT id, spec FROM job ORDER BY id LIMIT 1")
    (pattern, _) = connection.execute(query).one()
    connection.execute(
        text(
            "INSERT INTO job (id, account_id, state, cause, detail, spec, submitted_ms, queued_ms, ended_ms,"
            " charged_micro, budget_micro, retries_used) SELECT :id, account_id, :state, 'buyer', 'x', spec,"
            " submitted_ms, queued_ms, 5, 0, 700, 0 FROM job WHERE id = :pattern"
        ),
        {"id": job_id, "state": str(JobState.CANCELLED), "pattern": pattern},
    )
    transfer = hold(
        transfer_id=derived_uuid("held"), account_id=buyer_id, job_id=job_id, amount_micro=700, event_ms=1
    )
    assert all(outcome.ok for outcome in tx.post([transfer], 1))


TABLES = (
    *("job", "attempt", "attempt_gpu", "bill_line", "credit", "event", "host"),
    *("gpu_owner", "gpu_claim", "strike", "ledger_account"),
)


def everything(connection: Connection) -> dict[str, object]:
    """What a pass may have changed, in an order that does not depend on it."""
    return {
        name: sorted(str(tuple(row)) for row in connection.execute(text(f"SELECT * FROM {name}")))
        for name in TABLES
    }


@contextmanager
def dies_at(connection: Connection, number: int) -> Iterator[list[int]]:
    """At the statement of that number, if so many are made."""
    left = [number]

    def strike(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        # What stands for the begin and the commit here is not to die at: nothing would roll it back.
        if "SAVEPOINT" not in statement:
            left[0] -= 1
            if left[0] == 0:
                raise Died

    event.listen(connection, "before_cursor_execute", strike)
    try:
        yield left
    finally:
        event.remove(connection, "before_cursor_execute", strike)


@pytest.fixture
def populated(market_engine: Engine) -> Iterator[Connection]:
    with market_engine.connect() as connection, connection.begin() as whole:
        populate(UnitTransaction(connection))
        yield connection
        whole.rollback()


def survives(connection: Connection, do: Callable[[Transaction], object], number: int) -> bool:
    """Do it until the statement of that number; True: it was done before that."""
    with dies_at(connection, number):
        try:
            with connection.begin_nested():
                tx = UnitTransaction(connection)
                do(tx)
                tx.flush()
        except Exception:  # noqa: BLE001 - whatever became of Died on its way
            return False
    return True


@pytest.mark.parametrize("name", PASSES)
def test_a_pass_may_die_anywhere_and_be_done_again(populated: Connection, name: str) -> None:
    one, before, number = PASSES[name], everything(populated), 1
    assert not one.done(populated), "there is nothing to do"
    while not survives(populated, one.do, number):
        assert everything(populated) == before, f"done by halves at statement {number}"
        number += 1
    assert number > 1
    assert one.done(populated)
    after = everything(populated)
    assert survives(populated, one.do, 10**9)
    if name not in {"schedule", "expire"}:
        assert everything(populated) == after, "done twice"
    violations, _ = audit.run(UnitTransaction(populated))
    assert [line for line in violations if "job_0" not in line or name == "leftovers"] == []


def test_the_sample_finds_what_the_audit_finds(populated: Connection) -> None:
    """In turn, whatever there is; and the newest at once."""
    tx = UnitTransaction(populated)
    found = audit.sample(tx, "")
    assert found.violations == ["job_0 should hold 0 but holds 700"]
    assert found.jobs == 5
    assert audit.sample(tx, found.after_job_id).after_job_id == ""
    populated.execute(text("UPDATE attempt SET state = 'ended', end_reason = 'exited', cause = 'buyer'"))
    broken = " ".join(audit.sample(tx, "").violations)
    assert "is running and has 0 live attempts" in broken
    assert "is starting and has 0 live attempts" in broken
    assert audit.run(tx)[0]


def test_upkeep_leaves_alone_what_is_in_order(populated: Connection) -> None:
    tx = UnitTransaction(populated)
    assert upkeep.overdue_once(tx, STARTED, WINDOW_MS, "", LATER) == ""
    assert upkeep.leftovers_once(tx, "job_1", LATER) == (0, "")
    tx.save_hold(host_of(tx, "free"), Hold.PAUSED, "", 1)
    upkeep.orphans_once(tx, LATER)
    assert upkeep.orphans_once(tx, LATER) == 0


def test_a_host_that_never_gets_a_job_ready_is_not_waited_for_for_ever(populated: Connection) -> None:
    tx = UnitTransaction(populated)
    attempt = next(a for a in tx.live_attempts("", 9) if a.state is AttemptState.ASSIGNED)
    tx.save_attempt(attempt, replace(attempt, state=AttemptState.PREPARING))
    upkeep.overdue_once(tx, STARTED, WINDOW_MS, "", at(upkeep.PREPARING_MS_MAX))
    assert len(tx.live_attempts("", 9)) == 2
    late = Stamp(boot_id=STARTED.boot_id, boot_ms=upkeep.PREPARING_MS_MAX + 20_000, wall_ms=5)
    upkeep.overdue_once(tx, STARTED, WINDOW_MS, "", late)
    assert len(tx.live_attempts("", 9)) == 1
