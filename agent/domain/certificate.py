"""When a certificate is renewed: well before its end, and not when everybody else renews theirs."""

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
PPM = 1_000_000


def renew_at_ms(begins_ms: int, ends_ms: int, chance_ppm: int) -> int:
    """Between a half and two thirds of its life; `chance_ppm`, 0 to a million, says where."""
    life_ms = max(0, ends_ms - begins_ms)
    return begins_ms + life_ms // 2 + life_ms * chance_ppm // (6 * PPM)


def retry_ms(left_ms: int, chance_ppm: int) -> int:
    """How long to wait after a failure: many tries in what is left, and none in a hurry."""
    most_ms = min(max(left_ms // 10, MINUTE_MS), 6 * HOUR_MS)
    return most_ms // 2 + most_ms * chance_ppm // (2 * PPM)
