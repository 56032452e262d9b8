"""What a run costs, and how it is divided."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.domain.pricing import (
    HOUR_MS,
    RUN_MS_TOP,
    Charge,
    charge_between,
    hour_price_micro,
    run_ms_affordable,
)

PRICES = st.integers(1, 64 * 10**12)
FEES = st.integers(0, 1_000_000)
RUNS = st.integers(0, 2_592_000_000)
BUDGETS = st.integers(1, 2**53 - 1)


@pytest.mark.parametrize(
    ("price", "fee_ppm", "before", "after", "charge", "fee"),
    [
        (3_600_000, 50_000, 0, 1_000, 1_000, 50),
        (3_600_000, 50_000, 1_000, 2_000, 1_000, 50),
        (3_600_000, 0, 0, 10_000, 10_000, 0),
        (3_600_000, 1_000_000, 0, 10_000, 10_000, 10_000),
        (1, 50_000, 0, HOUR_MS - 1, 0, 0),
        (1, 50_000, 0, HOUR_MS, 1, 0),  # the odd micro-credit is the seller's
        (3_599_999, 50_000, 0, 1_000, 999, 49),
        (600_000, 50_000, 5_000, 5_000, 0, 0),
    ],
)
def test_a_charge_is_rounded_down_and_so_is_its_fee(price, fee_ppm, before, after, charge, fee):
    expected = Charge(charge_micro=charge, fee_micro=fee, earning_micro=charge - fee)
    assert charge_between(price, fee_ppm, before, after) == expected


@given(PRICES, FEES, st.lists(RUNS, min_size=1, max_size=20))
def test_charges_telescope(price, fee_ppm, moments):
    """However a run is cut, it costs what the whole costs, and so do its parts to each party."""
    cuts = [0, *sorted(moments)]
    parts = [charge_between(price, fee_ppm, a, b) for a, b in itertools.pairwise(cuts)]
    whole = charge_between(price, fee_ppm, 0, cuts[-1])
    assert sum(part.charge_micro for part in parts) == whole.charge_micro == price * cuts[-1] // HOUR_MS
    assert sum(part.fee_micro for part in parts) == whole.fee_micro
    assert sum(part.earning_micro for part in parts) == whole.earning_micro
    for part in parts:
        assert part.fee_micro + part.earning_micro == part.charge_micro
        assert min(part.charge_micro, part.fee_micro, part.earning_micro) >= 0


@given(PRICES, BUDGETS)
def test_what_a_budget_affords_is_never_above_it_and_as_much_as_can_be(price, budget):
    run_ms = run_ms_affordable(price, budget)
    assert charge_between(price, 0, 0, run_ms).charge_micro <= budget
    if run_ms < RUN_MS_TOP:
        assert (run_ms + 1) * price > budget * HOUR_MS


def test_a_fortune_at_the_lowest_price_fits_the_database():
    """It did not: a rich buyer and a seller at 1 micro-credit an hour made every scheduling pass fail."""
    assert run_ms_affordable(1, 2**53 - 1) == RUN_MS_TOP < 2**63


def test_all_gpus_of_a_job_cost_the_same():
    assert hour_price_micro(600_000, 4) == 2_400_000
