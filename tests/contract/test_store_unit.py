"""What a transaction holds back is written together, before anything else is asked, or not at all."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from sqlalchemy import Engine, event

from coordinator.domain.event import EventKind, NewEvent
from coordinator.domain.job import LogState
from coordinator.domain.states import AttemptState, Cause, EndReason, JobState
from coordinator.store.unit import HeldBackError, UnitTransaction
from tests.support.store_fixtures import seed
from tests.support.values import attempt, gpu, job


@pytest.fixture
def unit(market_engine: Engine) -> Iterator[UnitTransaction]:
    with market_engine.connect() as connection, connection.begin() as whole:
        made = UnitTransaction(connection)
        seed(made)
        made.flush()
        yield made
        whole.rollback()


@contextmanager
def statements(unit: UnitTransaction) -> Iterator[list[str]]:
    said: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        said.append(statement)

    event.listen(unit.connection, "before_cursor_execute", note)
    yield said
    event.remove(unit.connection, "before_cursor_execute", note)


def ended(before: object = None) -> object:
    return replace(
        attempt(),
        state=AttemptState.ENDED,
        end_reason=EndReason.EXITED,
        cause=Cause.BUYER,
        log_state=LogState.COMPLETE,
    )


def take_in(unit: UnitTransaction, count: int) -> None:
    """Jobs with an attempt each, which begin, run and end, with an event for each step."""
    jobs = [job(f"job_x{n}") for n in range(count)]
    unit.insert_jobs(jobs)
    attempts = [attempt(id=f"att_x{n}", job_id=f"job_x{n}", gpus=(gpu(f"GPU-x{n}"),)) for n in range(count)]
    assert list(unit.insert_attempts(attempts)) == []
    for one, tried in zip(jobs, attempts, strict=True):
        for state in (JobState.STARTING, JobState.RUNNING):
            now = unit.job(one.id)
            assert now is not None
            assert unit.save_job(now, replace(now, state=state))
            unit.append_events([NewEvent(kind=EventKind.STARTED, job_id=one.id, text="", job_state=state)], 1)
        assert unit.save_attempt(tried, replace(tried, state=AttemptState.RUNNING))
        unit.save_reliability(tried.host_id, 7)


@pytest.mark.parametrize("count", [4, 40])
def test_many_cost_as_many_statements_as_few(unit: UnitTransaction, count: int) -> None:
    unit.own_gpus("host_1", [f"GPU-x{n}" for n in range(count)])
    with statements(unit) as said:
        take_in(unit, count)
        unit.flush()
    # GPUs in use; jobs, attempts, GPUs, a standing; the events' number, and they. COPY is not heard here.
    assert len(said) <= 7, said
    assert len(unit.events_after(f"job_x{count - 1}", 0, 9)) == 2


def test_whether_the_market_was_restored_is_read_once(unit: UnitTransaction) -> None:
    """It was read for each attempt that a host did not have yet, in each beat: most of what a job cost."""
    with statements(unit) as said:
        assert [unit.restoration() for _ in range(40)] == [None] * 40
    assert len(said) == 1


def test_nothing_is_written_until_something_is_asked(unit: UnitTransaction) -> None:
    with statements(unit) as said:
        unit.insert_jobs([job("job_2")])
        assert unit.job("job_2") == job("job_2")
        assert said == []
        assert [found.id for found in unit.queue(9)] == ["job_1", "job_2"]
    assert len(said) == 2


def test_a_gpu_that_is_given_up_can_be_had_at_once(unit: UnitTransaction) -> None:
    unit.insert_attempt(attempt())
    unit.insert_jobs([job("job_2"), job("job_3")])
    unit.flush()
    assert not unit.insert_attempt(attempt(id="att_2", job_id="job_2"))
    unit.save_attempt(attempt(), ended())  # type: ignore[arg-type]
    assert unit.insert_attempt(attempt(id="att_2", job_id="job_2"))
    assert not unit.insert_attempt(attempt(id="att_3", job_id="job_3"))
    unit.flush()
    assert unit.gpus_taken(["GPU-1"]) == {"GPU-1": "att_2"}
    assert [found.id for found in unit.attempts_on_host("host_1")] == ["att_2"]


def test_an_attempt_that_began_and_ended_in_it_has_no_gpu(unit: UnitTransaction) -> None:
    unit.insert_attempt(attempt())
    unit.save_attempt(attempt(), ended())  # type: ignore[arg-type]
    unit.flush()
    assert unit.gpus_taken(["GPU-1"]) == {}
    assert unit.attempts_on_host("host_1") == []


def test_what_was_read_before_is_known_with_what_came_since(unit: UnitTransaction) -> None:
    assert unit.attempts_on_host("host_1") == []
    assert unit.attempts_of_jobs(["job_1"]) == {"job_1": []}
    unit.insert_attempt(attempt())
    assert unit.attempts_on_hosts(["host_1"]) == {"host_1": [attempt()]}
    assert unit.attempts_of_jobs(["job_1"]) == {"job_1": [attempt()]}
    unit.flush()
    assert unit.attempts_on_hosts(["host_1"]) == {"host_1": [attempt()]}


def test_a_row_that_somebody_else_changed_is_not_written_over(unit: UnitTransaction) -> None:
    before = unit.job("job_1")
    assert before is not None
    unit.connection.exec_driver_sql("UPDATE job SET charged_micro = 5 WHERE id = 'job_1'")
    assert unit.save_job(before, replace(before, state=JobState.STARTING))
    with pytest.raises(HeldBackError):
        unit.flush()


@pytest.mark.parametrize(
    ("what", "sees"),
    [
        (lambda unit: unit.save_job(job(), replace(job(), state=JobState.STARTING)), (1, 0, set())),
        (lambda unit: unit.insert_attempt(attempt()), (0, 1, set())),
        (lambda unit: unit.save_hello("host_1", *_of(unit)), (0, 0, {"host_1"})),
        (lambda unit: unit.save_reliability("host_1", 5), (0, 0, set())),
        (lambda unit: unit.job("job_1"), (0, 0, set())),
    ],
    ids=["job", "attempt", "host", "rated", "read"],
)
def test_what_changed_is_known(
    unit: UnitTransaction, what: Callable[[UnitTransaction], object], sees: tuple[int, int, set[str]]
) -> None:
    unit = UnitTransaction(unit.connection)
    what(unit)
    unit.flush()
    news = unit.news()
    assert (len(news.jobs), len(news.attempts), set(news.hosts)) == sees


def _of(unit: UnitTransaction) -> tuple[object, object]:
    found = unit.host("host_1")
    assert found is not None
    return found.facts, found.terms
