"""Integer money: micro-credits, with every division naming how it rounds."""

import re
from enum import StrEnum
from typing import NewType, assert_never

Micro = NewType("Micro", int)
"""A millionth of a credit, the only unit of money inside."""

MICRO_PER_CREDIT = 1_000_000
# The largest integer that every JSON reader keeps exact.
TRANSFER_MICRO_MAX = 2**53 - 1
# Far below what int64 holds, so that a sum of two balances still fits.
BALANCE_MICRO_MAX = 2**62
PPM = 1_000_000
MS_PER_HOUR = 3_600_000

_CREDITS = re.compile(r"(\d{1,10})(?:\.(\d{1,6}))?", re.ASCII)


class MoneyError(ValueError):
    """What was written is not an amount; the message says what would be."""


class Rounding(StrEnum):
    FLOOR = "floor"
    CEILING = "ceiling"
    HALF_EVEN = "half_even"


def multiply_divide(value: int, numerator: int, denominator: int, rounding: Rounding) -> int:
    """`value * numerator / denominator`, exact but for one rounding."""
    _whole(value, numerator, denominator)
    if denominator <= 0:
        raise ValueError("the denominator must be positive")
    quotient, rest = divmod(value * numerator, denominator)
    match rounding:
        case Rounding.FLOOR:
            return quotient
        case Rounding.CEILING:
            return quotient + (rest > 0)
        case Rounding.HALF_EVEN:
            twice = 2 * rest
            return quotient + (twice > denominator or (twice == denominator and quotient % 2 == 1))
        case _:
            assert_never(rounding)


def charge_micro(rate_micro_per_hour: int, elapsed_ms: int) -> Micro:
    """What `elapsed_ms` cost in all, rounded down.

    Charges telescope: charge the whole time so far less what was charged before, and a job that was cut
    into a thousand records costs the same as one that was not.
    """
    if rate_micro_per_hour < 0 or elapsed_ms < 0:
        raise ValueError("a rate and a duration are never negative")
    _whole(rate_micro_per_hour, elapsed_ms)
    return Micro(rate_micro_per_hour * elapsed_ms // MS_PER_HOUR)


def split_fee(amount: int, fee_ppm: int) -> tuple[Micro, Micro]:
    """The seller's share and the platform's fee. The fee is rounded down; the seller has the rest."""
    if amount < 0:
        raise ValueError("an amount to split is never negative")
    if not 0 <= fee_ppm <= PPM:
        raise ValueError("a fee is between 0 and 1,000,000 parts per million")
    fee = multiply_divide(amount, fee_ppm, PPM, Rounding.FLOOR)
    return Micro(amount - fee), Micro(fee)


def parse_credits(text: str) -> Micro:
    """`"5.25"` is 5,250,000 micro-credits. No sign, no exponent, at most six decimals."""
    found = _CREDITS.fullmatch(text)
    if found is None:
        raise MoneyError(
            f"{text[:40]!r} is not an amount of credits: write it as 5 or 5.25, six decimals at most"
        )
    micro = int(found[1]) * MICRO_PER_CREDIT + int((found[2] or "").ljust(6, "0"))
    if micro > TRANSFER_MICRO_MAX:
        raise MoneyError(
            f"{text} credits are too many: the most is {format_credits(Micro(TRANSFER_MICRO_MAX))}"
        )
    return Micro(micro)


def format_credits(amount: int) -> str:
    """5,250,000 micro-credits are `"5.250000"`."""
    _whole(amount)
    whole, rest = divmod(abs(amount), MICRO_PER_CREDIT)
    return f"{'-' if amount < 0 else ''}{whole}.{rest:06d}"


def _whole(*values: int) -> None:
    for value in values:
        if type(value) is not int:
            raise TypeError(f"money is whole micro-credits, not {type(value).__name__}")
