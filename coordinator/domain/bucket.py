"""How often somebody may do something: a bucket of tokens, one for each time, that fills up at a pace."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Pace:
    per_second: int
    # As many at once, after a rest.
    burst: int


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """What was in it at a moment, in thousandths of a token: a whole one is worth one time."""

    held_milli: int
    at_ms: int


def full(pace: Pace, now_ms: int) -> Bucket:
    return Bucket(held_milli=pace.burst * 1_000, at_ms=now_ms)


def take(bucket: Bucket, pace: Pace, now_ms: int) -> tuple[Bucket, int]:
    """The bucket afterwards, and how long to wait before another try; 0: it was taken."""
    held_milli = _held_milli(bucket, pace, now_ms)
    if held_milli >= 1_000:
        return Bucket(held_milli=held_milli - 1_000, at_ms=now_ms), 0
    wait_ms = -(-(1_000 - held_milli) // pace.per_second)
    return Bucket(held_milli=held_milli, at_ms=now_ms), wait_ms


def wait_ms(bucket: Bucket, pace: Pace, now_ms: int) -> int:
    """How long until there is one to take; takes nothing."""
    return max(0, -(-(1_000 - _held_milli(bucket, pace, now_ms)) // pace.per_second))


def _held_milli(bucket: Bucket, pace: Pace, now_ms: int) -> int:
    """So many a second are as many thousandths a millisecond."""
    passed_ms = max(0, now_ms - bucket.at_ms)
    return min(bucket.held_milli + passed_ms * pace.per_second, pace.burst * 1_000)
