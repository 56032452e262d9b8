"""What a run costs. The quote, the fuse and the bill use these functions and no others.

Charges telescope: what is due is always computed for the whole run so far, and what was charged before is
taken off, so a run cut into a thousand records costs the same as one that was not.
"""

from dataclasses import dataclass

from ledger.money import charge_micro

HOUR_MS = 3_600_000
PPM = 1_000_000
# Longer than any run; what a fortune buys at the lowest price must still fit into 64 bits.
RUN_MS_TOP = 2**53 - 1


@dataclass(frozen=True, kw_only=True)
class Charge:
    """`fee_micro + earning_micro == charge_micro`, always."""

    charge_micro: int
    fee_micro: int
    earning_micro: int


def hour_price_micro(gpu_hour_price_micro: int, gpu_count: int) -> int:
    return gpu_hour_price_micro * gpu_count


def run_ms_affordable(hour_price: int, budget_micro: int) -> int:
    """The longest run whose charge is not above the budget."""
    return min(budget_micro * HOUR_MS // hour_price, RUN_MS_TOP)


def charge_between(hour_price: int, fee_ppm: int, billed_ms_before: int, billed_ms_after: int) -> Charge:
    """What a run costs that was paid up to one moment and is now to be paid up to a later one."""
    before, after = (int(charge_micro(hour_price, ms)) for ms in (billed_ms_before, billed_ms_after))
    fee = _fee_micro(after, fee_ppm) - _fee_micro(before, fee_ppm)
    return Charge(charge_micro=after - before, fee_micro=fee, earning_micro=after - before - fee)


def _fee_micro(charged_micro: int, fee_ppm: int) -> int:
    """Rounds down, so the seller has the odd micro-credit."""
    return charged_micro * fee_ppm // PPM
