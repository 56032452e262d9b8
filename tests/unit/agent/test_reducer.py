"""What the agent does next: one row per situation, and that doing it is the end of it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.attempt import AttemptKey, AttemptState, DesiredAttempt, EndReason
from agent.domain.reducer import (
    Abandon,
    Acknowledge,
    Action,
    Extend,
    Forget,
    Held,
    Start,
    Stop,
    TakeBack,
    reduce,
)
from tests.support.orders import desired

PREPARING, RUNNING = AttemptState.PREPARING, AttemptState.RUNNING
STOPPING, ENDED = AttemptState.STOPPING, AttemptState.ENDED


def key(attempt_id: str = "a", epoch: int = 1) -> AttemptKey:
    return AttemptKey(attempt_id=attempt_id, epoch=epoch)


def held(
    state: AttemptState = RUNNING,
    attempt_id: str = "a",
    epoch: int = 1,
    *,
    paid_through_ms: int = 10_000,
    stop_reason: EndReason | None = None,
    usage: int = 0,
    output: int = 0,
    abandoned: bool = False,
) -> Held:
    return Held(
        key=key(attempt_id, epoch),
        state=state,
        paid_through_ms=paid_through_ms,
        stop_reason=stop_reason,
        usage_number_acknowledged=usage,
        log_offset_acknowledged=output,
        is_abandoned=abandoned,
    )


def start(want: DesiredAttempt) -> Start:
    return Start(order=want.order, paid_through_ms=want.paid_through_ms)


CANCELLED, SUPERSEDED = EndReason.CANCELLED, EndReason.SUPERSEDED
NEW = desired()
TABLE: dict[str, tuple[list[Held], list[DesiredAttempt], list[Action]]] = {
    "nothing wanted, nothing held": ([], [], []),
    "wanted and not held: start": ([], [NEW], [start(NEW)]),
    "wanted only to end: nothing to start": ([], [desired(stop_reason=CANCELLED)], []),
    "usage of it is stored: it ran here and was lost": ([], [desired(usage=1)], []),
    "output of it is stored: it ran here and was lost": ([], [desired(output=1)], []),
    "held and wanted: all is well": ([held()], [NEW], []),
    "held and wanted while preparing": ([held(PREPARING)], [NEW], []),
    "to be stopped while running": (
        [held()],
        [desired(stop_reason=CANCELLED)],
        [Stop(key=key(), reason=CANCELLED)],
    ),
    "to be stopped while preparing": (
        [held(PREPARING)],
        [desired(stop_reason=EndReason.RECLAIMED)],
        [Stop(key=key(), reason=EndReason.RECLAIMED)],
    ),
    "the first reason stands": (
        [held(stop_reason=CANCELLED)],
        [desired(stop_reason=EndReason.RECLAIMED)],
        [],
    ),
    "stopping already": ([held(STOPPING, stop_reason=CANCELLED)], [desired(stop_reason=CANCELLED)], []),
    "ended, and still named: kept": ([held(ENDED)], [desired(stop_reason=CANCELLED)], []),
    "ended, and no longer named: forgotten": ([held(ENDED)], [], [Forget(key=key())]),
    "running, and no longer named: abandoned": ([held()], [], [Abandon(key=key())]),
    "stopping, and no longer named: its output is not awaited": (
        [held(STOPPING, stop_reason=CANCELLED)],
        [],
        [Abandon(key=key())],
    ),
    "abandoned already": ([held(STOPPING, stop_reason=CANCELLED, abandoned=True)], [], []),
    "paid further": (
        [held()],
        [desired(paid_through_ms=20_000)],
        [Extend(key=key(), paid_through_ms=20_000)],
    ),
    "paid less is old news": ([held()], [desired(paid_through_ms=5_000)], []),
    "paid further, but stopping": (
        [held(STOPPING, stop_reason=EndReason.PAID_THROUGH)],
        [desired(paid_through_ms=20_000)],
        [],
    ),
    "stored further": (
        [held(usage=1, output=5)],
        [desired(usage=2, output=5)],
        [Acknowledge(key=key(), usage_number=2, log_offset=5)],
    ),
    "stored further after the end": (
        [held(ENDED, output=5)],
        [desired(output=9)],
        [Acknowledge(key=key(), usage_number=0, log_offset=9)],
    ),
    "a higher epoch replaces": (
        [held()],
        [desired(epoch=2)],
        [Abandon(key=key()), start(desired(epoch=2))],
    ),
    "a higher epoch replaces what has ended": (
        [held(ENDED)],
        [desired(epoch=2)],
        [Forget(key=key()), start(desired(epoch=2))],
    ),
    "a lower epoch is old news": ([held(epoch=3)], [desired(epoch=2)], []),
    "a lower epoch than an ended one is old news": ([held(ENDED, epoch=3)], [desired(epoch=2)], []),
    "both epochs held": (
        [held(STOPPING, stop_reason=SUPERSEDED, abandoned=True), held(epoch=2)],
        [desired(epoch=2)],
        [],
    ),
    "others are left alone": (
        [held(attempt_id="a"), held(attempt_id="b")],
        [desired("a"), desired("b", stop_reason=CANCELLED), desired("c")],
        [Stop(key=key("b"), reason=CANCELLED), start(desired("c"))],
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_table(name):
    have, want, actions = TABLE[name]
    assert list(reduce(have, want)) == actions


def test_only_the_first_word_of_a_stream_takes_acknowledgements_back():
    """The coordinator's database was restored; what comes later may be news of before."""
    have, want = (
        [held(usage=5, output=90), held(ENDED, "b", usage=2)],
        [desired(usage=3), desired("b", usage=2)],
    )
    back = TakeBack(key=key(), usage_number=3, log_offset=0)
    assert reduce(have, want, is_first=True) == (back,)
    assert reduce(have, want) == ()
    less_output = [desired(usage=6, output=80), desired("b", usage=2)]
    assert reduce(have, less_output, is_first=True) == (TakeBack(key=key(), usage_number=6, log_offset=80),)


states = st.sampled_from(list(AttemptState))
ids = st.sampled_from(["a", "b", "c"])
epochs = st.integers(1, 3)
helds = st.builds(held, states, ids, epochs, paid_through_ms=st.sampled_from([5_000, 10_000, 20_000]))
wants = st.builds(
    desired,
    ids,
    epochs,
    paid_through_ms=st.sampled_from([5_000, 10_000, 20_000]),
    stop_reason=st.sampled_from([None, CANCELLED]),
    usage=st.integers(0, 2),
    output=st.integers(0, 2),
)


def carry_out(have: dict[AttemptKey, Held], actions: tuple[Action, ...]) -> dict[AttemptKey, Held]:
    after = dict(have)
    for action in actions:
        match action:
            case Start():
                after[action.order.key] = replace(
                    held(PREPARING), key=action.order.key, paid_through_ms=action.paid_through_ms
                )
            case Stop():
                after[action.key] = replace(after[action.key], stop_reason=action.reason)
            case Abandon():
                stopped = after[action.key].stop_reason or SUPERSEDED
                after[action.key] = replace(after[action.key], stop_reason=stopped, is_abandoned=True)
            case Extend():
                after[action.key] = replace(after[action.key], paid_through_ms=action.paid_through_ms)
            case Acknowledge():
                after[action.key] = replace(
                    after[action.key],
                    usage_number_acknowledged=max(
                        action.usage_number, after[action.key].usage_number_acknowledged
                    ),
                    log_offset_acknowledged=max(action.log_offset, after[action.key].log_offset_acknowledged),
                )
            case TakeBack():
                after[action.key] = replace(
                    after[action.key],
                    usage_number_acknowledged=action.usage_number,
                    log_offset_acknowledged=action.log_offset,
                )
            case Forget():
                del after[action.key]
    return after


@given(
    st.dictionaries(st.tuples(ids, epochs), helds, max_size=5),
    st.lists(wants, max_size=3, unique_by=lambda want: want.order.key.attempt_id),
    st.booleans(),
)
def test_once_carried_out_nothing_is_left_to_do(have, want, is_first):
    by_key = {key(*name): replace(attempt, key=key(*name)) for name, attempt in have.items()}
    after = carry_out(by_key, reduce(by_key.values(), want, is_first=is_first))
    assert reduce(after.values(), want, is_first=is_first) == ()


@given(st.lists(helds, max_size=4, unique_by=lambda h: h.key), st.lists(wants, max_size=3))
def test_paid_through_never_falls_and_nothing_running_is_forgotten(have, want):
    by_key = {attempt.key: attempt for attempt in have}
    for action in reduce(have, want):
        match action:
            case Extend():
                assert action.paid_through_ms > by_key[action.key].paid_through_ms
            case Forget():
                assert by_key[action.key].state is ENDED
            case _:
                pass
