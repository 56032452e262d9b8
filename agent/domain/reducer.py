"""What to do next, from what is and what should be.

It looks at levels, not at changes: run again with the same input it asks for nothing new once the first
answer was carried out, so it can be run on every message, after every local change, and after a restart.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agent.domain.attempt import AttemptKey, AttemptState, DesiredAttempt, EndReason, JobOrder


@dataclass(frozen=True, kw_only=True)
class Held:
    """What the reducer must know of an attempt that the agent holds."""

    key: AttemptKey
    state: AttemptState
    paid_through_ms: int
    stop_reason: EndReason | None
    usage_number_acknowledged: int
    log_offset_acknowledged: int
    is_abandoned: bool = False


@dataclass(frozen=True, kw_only=True)
class Start:
    """Begin this attempt."""

    order: JobOrder
    paid_through_ms: int


@dataclass(frozen=True, kw_only=True)
class Stop:
    """End what runs, politely first."""

    key: AttemptKey
    reason: EndReason


@dataclass(frozen=True, kw_only=True)
class Abandon:
    """End what runs, and keep nobody waiting for its output: it is over for the coordinator."""

    key: AttemptKey


@dataclass(frozen=True, kw_only=True)
class Extend:
    """More of the run is paid."""

    key: AttemptKey
    paid_through_ms: int


@dataclass(frozen=True, kw_only=True)
class Acknowledge:
    """The coordinator has stored usage and output up to here."""

    key: AttemptKey
    usage_number: int
    log_offset: int


@dataclass(frozen=True, kw_only=True)
class TakeBack:
    """The coordinator has no more than this, whatever it acknowledged: its database was restored."""

    key: AttemptKey
    usage_number: int
    log_offset: int


@dataclass(frozen=True, kw_only=True)
class Forget:
    """Nobody will ask about this ended attempt again: destroy what is left of it, journals and all."""

    key: AttemptKey


Action = Start | Stop | Abandon | Extend | Acknowledge | TakeBack | Forget


def reduce(
    held: Iterable[Held], desired: Sequence[DesiredAttempt], *, is_first: bool = False
) -> tuple[Action, ...]:
    """The actions that bring what is held towards what is desired; stops come before starts.

    `is_first`: it is the first word on a stream, read after all that was acknowledged on streams before. A
    later one may have been read before an acknowledgement that came ahead of it.
    """
    by_key = {attempt.key: attempt for attempt in held}
    epoch_desired = {want.order.key.attempt_id: want.order.key.epoch for want in desired}
    actions: list[Action] = []
    for key in sorted(by_key):
        actions += _about_unnamed(by_key[key], epoch_desired.get(key.attempt_id))
    epoch_held: dict[str, int] = {}
    for key in sorted(by_key):
        epoch_held[key.attempt_id] = key.epoch
    for want in desired:
        key = want.order.key
        attempt = by_key.get(key)
        if attempt is not None:
            actions += _about_held(attempt, want, is_first=is_first)
        elif key.epoch > epoch_held.get(key.attempt_id, 0) and _is_new(want):
            actions.append(Start(order=want.order, paid_through_ms=want.paid_through_ms))
    return tuple(actions)


def _about_unnamed(attempt: Held, epoch_desired: int | None) -> list[Action]:
    # A lower epoch in `desired` is old news about an attempt of which we know better: leave it alone.
    if epoch_desired is not None and epoch_desired <= attempt.key.epoch:
        return []
    if attempt.state is AttemptState.ENDED:
        return [Forget(key=attempt.key)]
    return [] if attempt.is_abandoned else [Abandon(key=attempt.key)]


def _about_held(attempt: Held, want: DesiredAttempt, *, is_first: bool) -> list[Action]:
    actions: list[Action] = []
    stored = {"usage_number": want.usage_number_acknowledged, "log_offset": want.log_offset_acknowledged}
    if is_first and (
        want.usage_number_acknowledged < attempt.usage_number_acknowledged
        or want.log_offset_acknowledged < attempt.log_offset_acknowledged
    ):
        actions.append(TakeBack(key=attempt.key, **stored))
    elif (
        want.usage_number_acknowledged > attempt.usage_number_acknowledged
        or want.log_offset_acknowledged > attempt.log_offset_acknowledged
    ):
        actions.append(Acknowledge(key=attempt.key, **stored))
    if attempt.state is AttemptState.ENDED or attempt.stop_reason is not None:
        return actions
    if want.paid_through_ms > attempt.paid_through_ms:
        actions.append(Extend(key=attempt.key, paid_through_ms=want.paid_through_ms))
    if want.stop_reason is not None:
        actions.append(Stop(key=attempt.key, reason=want.stop_reason))
    return actions


def _is_new(want: DesiredAttempt) -> bool:
    """Should an attempt that we do not hold begin?

    Not when it should end anyway, and not when it has left traces with the coordinator: then it ran here
    before and we lost it, and a second run would be another one. Its absence from our beats says so.
    """
    return (
        want.stop_reason is None and want.usage_number_acknowledged == 0 and want.log_offset_acknowledged == 0
    )
