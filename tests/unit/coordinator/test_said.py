"""What a host is told after a commit is what it would find in the database."""

from dataclasses import replace

from coordinator.api import convert_host as convert
from coordinator.api.said import Said
from coordinator.domain.job import Attempt, LogState
from coordinator.domain.states import AttemptState, EndReason
from coordinator.services.desired import Wanted
from coordinator.services.synchronize import Report
from coordinator.store.ports import Held
from tests.support.values import attempt, job
from usance.v1 import host_pb2 as h


def held(*attempts: Attempt, whole: bool) -> Held:
    return Held(attempts=[(one, job(one.job_id)) for one in attempts], whole=whole)


def told(said: Said) -> list[str]:
    assert said.message is not None
    return [one.attempt_id for one in said.message.desired.attempts]


def read(said: Said, *attempts: Attempt) -> None:
    wanted = [Wanted(attempt=one, spec=job().spec, account_id="acct_buyer") for one in attempts]
    said.begin_to_read()
    message = h.SynchronizeResponse()
    message.desired.attempts.extend(h.DesiredAttempt(attempt_id=one.id, epoch=1) for one in attempts)
    said.was_read(wanted, message)


def report(attempt_id: str, state: AttemptState) -> Report:
    return Report(attempt_id=attempt_id, epoch=1, state=state)


def test_what_is_not_known_yet_is_read_and_then_added_to() -> None:
    said = Said()
    said.rung(held(attempt(id="att_1"), whole=False))
    assert said.is_stale, "nothing is known that it could be added to"
    read(said, attempt(id="att_1"))
    said.rung(held(attempt(id="att_2"), whole=False))
    assert (told(said), said.is_due, said.is_stale) == (["att_1", "att_2"], True, False)
    said.rung(held(attempt(id="att_2"), whole=True))
    assert told(said) == ["att_2"]
    said.rung(None)
    assert said.is_stale


def test_an_order_that_was_said_before_is_said_as_it_is_now() -> None:
    said, before = Said(), job("job_1")
    said.rung(Held(attempts=[(attempt(id="att_1"), before)], whole=True))
    longer = replace(before, spec=replace(before.spec, run_ms_max=before.spec.run_ms_max + 1))
    stopped = attempt(id="att_1", paid_through_ms=77, stop_reason=EndReason.CANCELLED, log_offset=5)
    for now in (longer, before):
        said.rung(Held(attempts=[(stopped, now)], whole=True))
        assert said.message is not None
        (told_now,) = said.message.desired.attempts
        wanted = Wanted(attempt=stopped, spec=now.spec, account_id=now.account_id, origin=now.origin)
        assert told_now == convert.wanted_to(wanted)


def test_what_is_rung_while_it_is_read_is_read_again() -> None:
    said = Said()
    said.begin_to_read()
    said.rung(held(whole=True))
    assert said.is_stale
    assert not said.holds_nothing


def test_an_end_is_news_until_the_host_was_told_to_let_go() -> None:
    said = Said()
    read(said, attempt(id="att_1"), attempt(id="att_2"))
    ended = [report("att_1", AttemptState.ENDED), report("att_2", AttemptState.ENDED)]
    assert said.news(ended) == ended
    over = attempt(id="att_1", state=AttemptState.ENDED, log_state=LogState.COMPLETE)
    said.rung(held(attempt(id="att_2"), whole=True))
    assert said.news(ended) == ended[1:]
    alive = report(over.id, AttemptState.RUNNING)
    assert said.news([alive]) == [alive], "that it lives on is for others to judge"
    assert said.news([]) == []
    assert said.news(ended) == ended, "it had let go, and this is another matter"
