"""What a run costs. The quote, the fuse and the bill use these functions and no others.

Charges telescope: what is due is always computed for the whole run so far, and what was charged before is
taken off, so a run cut into a thousand records costs the same as one that was not.
"""

from typing import NamedTuple

from ledger.money import charge_micro

HOUR_MS = 3_600_000
PPM = 1_000_000
# Longer than any run; what a fortune buys at the lowest price must still fit into 64 bits.
RUN_MS_TOP = 2**53 - 1


class Charge(NamedTuple):
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
    before, after = (due(hour_price, fee_ppm, ms) for ms in (billed_ms_before, billed_ms_after))
    return between(before, after)


def due(hour_price: int, fee_ppm: int, billed_ms: int) -> Charge:
    """What a run of that length costs in all. The fee rounds down, so the seller has the odd micro-credit."""
    charged = int(charge_micro(hour_price, billed_ms))
    fee = charged * fee_ppm // PPM
    return Charge(charged, fee, charged - fee)


def between(before: Charge, after: Charge) -> Charge:
    """What is due now, less what was due before."""
    return Charge(after[0] - before[0], after[1] - before[1], after[2] - before[2])
