"""What is submitted or comes free is acted on in the same commit, and whatever fails stops nothing else."""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import DBAPIError

from coordinator.domain.event import EventKind
from coordinator.domain.job import Attempt, GpuRequest
from coordinator.domain.refusal import Refusal, RefusalCode
from coordinator.domain.states import AttemptState, EndReason, JobState
from coordinator.services import gathered
from coordinator.services.aside import SET_ASIDE_MS
from coordinator.services.attempts import end_attempt
from coordinator.services.dispatch import JOBS_A_LOOK
from coordinator.services.jobs import JobView
from coordinator.services.submit import submits
from coordinator.services.synchronize import Report
from coordinator.store.ports import Transaction
from coordinator.store.transaction import SqlTransaction
from tests.support.running_dispatcher import WAIT_S, Running
from tests.support.values import HOST_BOOT, WINDOW_MS, attempt, job, meter, spec


def test_a_job_has_its_host_in_the_commit_that_took_it_in(running: Running) -> None:
    running.begin().connect("host_1", 2)
    commits = len(running.rings)
    job_id = running.submit_one()
    # One that waited at the gate, and the job's.
    assert len(running.rings) == commits + 2
    assert running.state(job_id) == JobState.STARTING
    assert {"host_1", job_id} <= running.rings[-1]
    events = running.database.read(lambda tx: tx.events_after(job_id, 0, 9)).result(WAIT_S)
    assert [one.what.kind for one in events] == [EventKind.SUBMITTED, EventKind.ASSIGNED]
    (attempt,) = running.attempts()
    assert (attempt.job_id, attempt.epoch, attempt.meter.assigned) == (job_id, 1, running.now())


def test_what_comes_free_is_given_on_in_the_same_commit(running: Running) -> None:
    running.begin().connect("host_1", 1)
    first, second = running.submit_one(), running.submit_one()
    assert (running.state(first), running.state(second)) == (JobState.STARTING, JobState.QUEUED)
    (attempt,) = running.attempts()
    commits = len(running.rings)
    running.write(lambda tx: end_attempt(tx, attempt, EndReason.EXITED, 0, "", running.now()))
    assert len(running.rings) == commits + 1
    assert (running.state(first), running.state(second)) == (JobState.SUCCEEDED, JobState.STARTING)


def test_who_waits_is_served_as_soon_as_a_host_comes(running: Running) -> None:
    job_id = running.begin().submit_one()
    assert running.state(job_id) == JobState.QUEUED
    running.connect("host_1", 1)
    assert running.state(job_id) == JobState.STARTING


def test_a_job_that_lost_its_host_gets_another_try_elsewhere(running: Running) -> None:
    running.begin().connect("host_1", 1)
    job_id = running.submit_one(retries_max=1)
    (attempt,) = running.attempts()
    running.connect("host_2", 1)
    running.write(lambda tx: end_attempt(tx, attempt, EndReason.HOST_LOST, None, "", running.now()))
    (again,) = running.database.read(lambda tx: tx.attempts_on_host("host_2")).result(WAIT_S)
    assert (again.job_id, again.epoch) == (job_id, 2)


def test_of_what_was_there_before_nobody_is_forgotten(running: Running) -> None:
    """A coordinator that begins reads all of it, page by page, and only then gives anything away."""
    running.connect("host_1", 1)
    running.write(
        lambda tx: tx.insert_jobs(
            [job(f"job_{n:04}", spec=spec(gpus=GpuRequest(count=8))) for n in range(JOBS_A_LOOK)]
        )
    )
    running.write(lambda tx: tx.insert_jobs([job("job_last")]))
    running.database.keeper = running.dispatcher
    running.look()
    ready_before = running.dispatcher.is_ready
    assert running.state("job_last") == JobState.QUEUED
    running.look()
    assert (ready_before, running.dispatcher.is_ready) == (False, True)
    assert running.state("job_last") == JobState.STARTING


def test_who_waited_long_enough_is_let_go(running: Running) -> None:
    job_id = running.begin().submit_one(queue_ms_max=5_000)
    running.now_ms += 5_000
    running.look()
    assert running.state(job_id) == JobState.EXPIRED


def test_who_can_not_pay_is_refused_and_nobody_else_is(running: Running) -> None:
    running.begin()
    orders = [running.order(budget_micro=micro) for micro in (6_000_000, 6_000_000, 4_000_000)]
    first, second, third = running.submit(*orders)
    assert isinstance(first, JobView)
    assert isinstance(third, JobView)
    assert isinstance(second, Refusal)
    assert (second.code, second.remedy) == (RefusalCode.INSUFFICIENT_FUNDS, "at most 4.000000 credits now")


def test_the_same_order_twice_at_once_is_one_job(running: Running) -> None:
    running.begin()
    order = running.order()
    first, second, other = running.submit(order, order, replace(order, spec=spec(note="another")))
    assert isinstance(first, JobView)
    assert first == second
    assert isinstance(other, Refusal)
    assert other.code is RefusalCode.REQUEST_ID_REUSED
    (again,) = running.submit(order)
    assert isinstance(again, JobView)
    assert again.job.id == first.job.id


# What fails


def test_a_look_is_not_to_blame_for_who_shared_its_transaction(running: Running) -> None:
    """Else whoever is refused often enough would have jobs wait for hosts that are there."""
    running.begin()
    begun, go = threading.Event(), threading.Event()

    def wait(_: Transaction) -> None:
        begun.set()
        assert go.wait(WAIT_S)

    def refuse(_: Transaction) -> None:
        raise Refusal(RefusalCode.FORBIDDEN, "no")

    running.database.write(wait)
    assert begun.wait(WAIT_S)
    looked, refused = running.database.write(running.dispatcher.look), running.database.write(refuse)
    go.set()
    looked.result(WAIT_S)
    assert isinstance(refused.exception(WAIT_S), Refusal)
    assert not running.dispatcher.looks_again


def poison(engine: Engine, when: str, table: str = "attempt") -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                f"CREATE TRIGGER poison BEFORE INSERT ON {table} WHEN {when}"
                " BEGIN SELECT RAISE(ABORT, 'poison'); END"
            )
        )


def test_a_job_that_can_not_be_assigned_is_set_aside_and_stops_nobody(running: Running) -> None:
    running.begin()
    bad, good = running.submit_one(), running.submit_one()
    poison(running.engine, f"NEW.job_id = '{bad}'")
    running.connect("host_1", 2)
    for _ in range(4):
        with_failures(running.look)
    assert (running.state(bad), running.state(good)) == (JobState.QUEUED, JobState.STARTING)
    assert running.aside == ["job"]
    # Others go on as ever, in their own commit.
    running.look()
    assert not running.dispatcher.looks_again
    later = running.submit_one()
    assert running.state(later) == JobState.STARTING
    with running.engine.begin() as connection:
        connection.execute(text("DROP TRIGGER poison"))
    running.connect("host_2", 1)
    running.now_ms += SET_ASIDE_MS
    running.look()
    assert running.state(bad) == JobState.STARTING, "it is tried again"


def with_failures(look: Callable[[], None]) -> None:
    """A loop goes on when a pass of it fails."""
    with suppress(DBAPIError):
        look()


@pytest.mark.parametrize("spec_text", ["{}", "no json", "[]"])
def test_a_job_of_which_nothing_can_be_made_stops_nobody(running: Running, spec_text: str) -> None:
    running.write(lambda tx: tx.insert_jobs([job("job_broken"), job("job_plain")]))
    with running.engine.begin() as connection:
        connection.execute(text("UPDATE job SET spec = :spec WHERE id = 'job_broken'"), {"spec": spec_text})
    running.begin().connect("host_1", 2)
    assert running.state("job_plain") == JobState.STARTING
    assert running.aside == ["job"]


@pytest.mark.parametrize("facts", ["{}", "no json", '{"gpus": 5}'])
def test_a_host_of_which_nothing_can_be_made_stops_nobody(running: Running, facts: str) -> None:
    running.connect("host_1", 1)
    running.connect("host_2", 1)
    with running.engine.begin() as connection:
        connection.execute(text("UPDATE host SET facts = :facts WHERE id = 'host_1'"), {"facts": facts})
    job_id = running.begin().submit_one()
    assert running.state(job_id) == JobState.STARTING
    assert running.aside == ["host"]


def test_what_was_not_committed_is_decided_again(running: Running) -> None:
    """Memory was ahead of a transaction that failed: it must not go on believing it."""
    running.begin().connect("host_1", 1)
    poison(running.engine, "NEW.gpu_uuid LIKE 'GPU-host_1%'", "attempt_gpu")
    job_id = running.submit_one()
    assert running.state(job_id) == JobState.QUEUED
    with running.engine.begin() as connection:
        connection.execute(text("DROP TRIGGER poison"))
    running.look()
    assert running.state(job_id) == JobState.STARTING
    running.look()
    assert running.submit_one()
    assert len(running.dispatcher.market.holdings) == 1


def test_what_another_changed_behind_us_is_found_out(running: Running) -> None:
    """As a second coordinator would: what we take to be free is taken, and a job waits that we never heard
    of."""
    running.begin().connect("host_1", 1)
    with running.engine.begin() as connection:
        other = SqlTransaction(connection)
        other.insert_jobs(
            [job("job_other", state=JobState.STARTING, spec=spec(retries_max=1)), job("job_unheard")]
        )
        market = running.dispatcher.market
        (shelf,) = next(iter(market.index.machines())).shelves
        theirs = replace(an_attempt("job_other"), gpus=shelf.gpus)
        assert other.insert_attempt(theirs)
    job_id = running.submit_one()
    assert running.state(job_id) == JobState.QUEUED
    assert len(running.dispatcher.market.lines) == 1
    running.look()
    assert set(running.dispatcher.market.lines) == {job_id, "job_unheard"}
    running.write(lambda tx: end_attempt(tx, theirs, EndReason.HOST_FORGOT, None, "", running.now()))
    assert running.state("job_unheard") == JobState.STARTING, "it came first"


def an_attempt(job_id: str) -> Attempt:
    return attempt(id="att_other", job_id=job_id, meter=meter(attempt_id="att_other"))


# What it costs


def statements(running: Running, act: Callable[[], object]) -> int:
    said: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if threading.current_thread().name == "writer":
            said.append(statement)

    event.listen(running.engine, "before_cursor_execute", note)
    act()
    event.remove(running.engine, "before_cursor_execute", note)
    return len(said)


def gather_all(running: Running, together: Callable[..., Sequence[object]], items: Sequence[object]) -> None:
    begun, go = threading.Event(), threading.Event()

    def wait(_: Transaction) -> None:
        begun.set()
        assert go.wait(WAIT_S)

    running.database.write(wait)
    assert begun.wait(WAIT_S)
    answers = [running.database.gather(together, item) for item in items]
    go.set()
    for answer in answers:
        answer.result(WAIT_S)


def ended(running: Running, attempts: list[Attempt]) -> gathered.Beat:
    reports = [
        Report(
            attempt_id=one.id,
            epoch=one.epoch,
            state=AttemptState.ENDED,
            exit_code=0,
            end_reason=EndReason.EXITED,
        )
        for one in attempts
    ]
    return gathered.Beat(
        host_id=attempts[0].host_id,
        boot_id=HOST_BOOT,
        reports=reports,
        window_ms=WINDOW_MS,
        now=running.now(),
    )


def test_many_jobs_are_taken_in_assigned_and_ended_with_as_many_statements_as_few(running: Running) -> None:
    running.begin()
    for n in range(1, 9):
        running.connect(f"host_{n}", 8)
    costs: list[tuple[int, int]] = []
    for count in (4, 40):
        orders = [running.order(budget_micro=1_000) for _ in range(count)]
        taken_in = statements(running, lambda orders=orders: gather_all(running, submits, orders))  # type: ignore[misc]
        held = running.database.read(
            lambda tx: tx.attempts_on_hosts([f"host_{n}" for n in range(1, 9)])
        ).result(WAIT_S)
        live = {
            host_id: [one for one in of if one.state is not AttemptState.ENDED]
            for host_id, of in held.items()
        }
        assert sum(map(len, live.values())) == count
        beats = [ended(running, of) for of in live.values() if of]
        over = statements(running, lambda beats=beats: gather_all(running, gathered.beats, beats))  # type: ignore[misc]
        costs.append((taken_in, over))
    assert costs[0] == costs[1], costs
    assert max(costs[1]) < 25, costs
