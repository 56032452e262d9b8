"""Cuts run time into pieces that lie end to end."""

from collections.abc import Iterator

# The longest piece that the protocol allows.
SLICE_MS_MAX = 60_000


def slices(metered_ms: int, run_ms: int, slice_ms: int) -> Iterator[tuple[int, int]]:
    """The pieces from what is metered already up to the run time now, each at most `slice_ms` long.

    A reading that is not later than what is metered gives nothing: time is never taken back or invented.
    """
    if not 0 < slice_ms <= SLICE_MS_MAX:
        raise ValueError(f"a slice is 1 to {SLICE_MS_MAX} ms long, not {slice_ms}")
    start_ms = metered_ms
    while start_ms < run_ms:
        end_ms = min(start_ms + slice_ms, run_ms)
        yield start_ms, end_ms
        start_ms = end_ms
