"""What a buyer reads of a job, on the market in memory."""

from dataclasses import replace

import pytest

from coordinator.domain.account import Account, Role
from coordinator.domain.job import LogChunk, LogState
from coordinator.domain.refusal import Refusal
from coordinator.domain.states import AttemptState, Cause, EndReason
from coordinator.services import reading
from coordinator.services.reading import BillPlace
from tests.support.memory_store import MemoryStore
from tests.support.store_fixtures import BUYER, SELLER, seed
from tests.support.values import attempt, meter

WHO = Account(id=BUYER, name="buyer", roles=frozenset({Role.BUYER}))
OTHER = Account(id=SELLER, name="seller", roles=frozenset({Role.BUYER}))


@pytest.fixture
def store():
    """A job whose first attempt has ended and whose second runs; each wrote three bytes at its time."""
    made = MemoryStore()
    seed(made)  # type: ignore[arg-type]
    first, second = attempt(), attempt(id="att_2", epoch=2, meter=meter(attempt_id="att_2", epoch=2))
    made.insert_attempt(first)
    ended = replace(first, state=AttemptState.ENDED, end_reason=EndReason.HOST_LOST, cause=Cause.HOST)
    made.save_attempt(first, replace(ended, log_offset=3, log_state=LogState.INCOMPLETE))
    made.insert_attempt(second)
    made.save_attempt(second, replace(second, log_offset=3))
    for attempt_id, at_ms in (("att_1", 100), ("att_2", 200)):
        for offset in range(3):
            chunk = LogChunk(offset=offset, stream=1, data=b"x")
            made.append_log(attempt_id, [chunk], at_ms + 10 * offset)
    return made


@pytest.mark.parametrize(
    ("since_ms", "place"),
    [
        (0, ("att_1", 0)),
        (101, ("att_1", 1)),
        (120, ("att_1", 2)),
        (121, ("att_2", 0)),
        (211, ("att_2", 2)),
        (221, ("att_2", 3)),
    ],
)
def test_output_since_a_moment_begins_with_the_attempt_that_wrote_then(store, since_ms, place):
    assert reading.log_since(store, WHO, "job_1", since_ms) == place


def test_a_job_without_attempts_has_no_place(store):
    store._attempts.clear()
    assert reading.log_since(store, WHO, "job_1", 0) == ("", 0)


def test_what_is_somebody_elses_is_not_there(store):
    with pytest.raises(Refusal, match="job_1"):
        reading.bill(store, OTHER, "job_1", BillPlace(), 3)
