"""What has fallen silent is found by a look that costs little, and given up one by one."""

from collections.abc import Mapping
from types import MappingProxyType

import pytest
from sqlalchemy import event, text

from coordinator.domain.host import HostState
from coordinator.domain.metering import Stamp
from coordinator.domain.states import JobState
from coordinator.services import reap
from tests.support.running_dispatcher import WAIT_S, Running
from tests.support.values import WINDOW_MS

NOBODY: Mapping[str, Stamp] = MappingProxyType({})


def reap_rules(running: Running) -> reap.Rules:
    return reap.Rules(started=running.now(), beat_interval_ms=1_000, window_ms=WINDOW_MS)


def look(
    running: Running,
    rules: reap.Rules,
    place: reap.Place = reap.Place(),  # noqa: B008 - a value
    heard: Mapping[str, Stamp] = NOBODY,
) -> reap.Found:
    now = running.now()
    return running.database.read(lambda tx: reap.find(tx, rules, place, heard, now)).result(WAIT_S)


def test_an_attempt_of_which_nothing_can_be_made_is_told_and_the_others_are_given_up(
    running: Running,
) -> None:
    running.begin().connect("host_1", 3)
    bad, good, _ = (running.submit_one() for _ in range(3))
    (of_bad,) = (one.id for one in running.attempts() if one.job_id == bad)
    with running.engine.begin() as connection:
        connection.execute(text("UPDATE attempt SET assigned = '5' WHERE id = :id"), {"id": of_bad})
    rules = reap_rules(running)
    running.now_ms += WINDOW_MS + 1
    found = running.database.read(lambda tx: reap.find(tx, rules, reap.Place(), {}, running.now())).result(
        WAIT_S
    )
    assert list(found.broken) == [of_bad]
    attempts = [due for due in found.due if due.kind is reap.Kind.ATTEMPT]
    assert len(attempts) == 2
    for due in attempts:
        running.write(lambda tx, due=due: reap.act(tx, due, rules, {}, running.now()))  # type: ignore[misc]
    assert running.state(good) == JobState.FAILED


def test_what_was_heard_after_it_was_found_silent_is_not_given_up(running: Running) -> None:
    running.begin().connect("host_1", 1)
    rules = reap_rules(running)
    running.now_ms += WINDOW_MS + 1
    found = running.database.read(lambda tx: reap.find(tx, rules, reap.Place(), {}, running.now())).result(
        WAIT_S
    )
    assert found.due == [reap.Due(kind=reap.Kind.HOST, name="host_1")]
    running.write(lambda tx: tx.save_seen("host_1", running.now()))
    running.write(lambda tx: reap.act(tx, found.due[0], rules, {}, running.now()))
    host = running.database.read(lambda tx: tx.host("host_1")).result(WAIT_S)
    assert host is not None
    assert host.link is HostState.ONLINE


@pytest.mark.parametrize("count", [1, 30])
def test_a_look_for_what_is_silent_costs_the_same_however_much_there_is(running: Running, count: int) -> None:
    running.begin()
    for n in range(5):
        running.connect(f"host_{n}", 8)
    for _ in range(count):
        running.submit_one(budget_micro=1_000)
    said: list[str] = []
    event.listen(running.engine, "before_cursor_execute", lambda *given: said.append(given[2]))
    rules = reap_rules(running)
    running.now_ms += WINDOW_MS + 1
    look(running, rules)
    # Its beginning; hosts; attempts: which, and they. Who is wanted back is asked for only where somebody is.
    assert len(said) == 4, said


def test_what_is_looked_for_every_second_is_found_by_an_index(running: Running) -> None:
    """The whole table of attempts was read, every one there ever was."""
    said: list[tuple[str, object]] = []
    event.listen(running.engine, "before_cursor_execute", lambda *given: said.append((given[2], given[3])))
    running.database.read(lambda tx: tx.attempts_awaited("", 9)).result(WAIT_S)
    running.database.read(lambda tx: tx.queue_after("", 9)).result(WAIT_S)
    with running.engine.connect() as connection:
        plans = [
            str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", given).all())  # type: ignore[arg-type]
            for statement, given in said
            if statement.startswith("SELECT")
        ]
    assert len(plans) == 2
    assert "attempt_host_ix" in plans[0]
    assert "job_live_ix" in plans[1]


def test_who_was_heard_is_not_silent_though_it_was_not_written_down(running: Running) -> None:
    running.begin().connect("host_1", 1)
    rules = reap_rules(running)
    running.now_ms += WINDOW_MS + 1
    heard, now = {"host_1": running.now()}, running.now()
    assert look(running, rules, heard=heard).due == []
    # It was silent when it was looked for, and is heard before it is judged.
    due = reap.Due(kind=reap.Kind.HOST, name="host_1")
    running.write(lambda tx: reap.act(tx, due, rules, heard, now))
    host = running.database.read(lambda tx: tx.host("host_1")).result(WAIT_S)
    assert host is not None
    assert host.link is HostState.ONLINE


def test_of_many_hosts_a_part_is_looked_at_and_then_the_next(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.begin()
    for n in range(5):
        running.connect(f"host_{n}", 1)
    monkeypatch.setattr(reap, "HOSTS_A_LOOK", 2)
    rules, place, found = reap_rules(running), reap.Place(), list[str]()
    running.now_ms += WINDOW_MS + 1
    for _ in range(3):
        part = look(running, rules, place)
        found += [due.name for due in part.due]
        place = part.last
    assert found == [f"host_{n}" for n in range(5)]
    assert place.host == ""


def test_a_host_is_silent_when_three_beats_are_missed_and_one_revoked_by_hand_at_once(
    running: Running,
) -> None:
    """Most are passed over without a closer look, for they were just heard: none of those that need one."""
    running.begin().connect("host_1", 1)
    rules, began_ms = reap_rules(running), running.now_ms
    due = [reap.Due(kind=reap.Kind.HOST, name="host_1")]
    for heard_ms, after_ms, expected in ((0, 3_000, []), (0, 3_001, due), (1, 3_001, []), (1, 3_002, due)):
        running.now_ms = began_ms + heard_ms
        heard = {"host_1": running.now()} if heard_ms else NOBODY
        running.now_ms = began_ms + after_ms
        assert look(running, rules, heard=heard).due == expected, (heard_ms, after_ms)
    running.now_ms = began_ms
    with running.engine.begin() as connection:
        connection.execute(text("UPDATE host SET revoked_ms = 1"))
    assert look(running, rules, heard={"host_1": running.now()}).due == due
