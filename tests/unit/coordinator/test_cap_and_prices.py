"""Spending caps and their months; prices over the whole market."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from coordinator.domain.cap import SpendingCap, month_of
from coordinator.domain.host import HostState
from coordinator.domain.prices import model_prices
from tests.support.values import gpu, room


def ms(year: int, month: int, day: int) -> int:
    return int(datetime(year, month, day, tzinfo=UTC).timestamp()) * 1_000


@pytest.mark.parametrize(
    ("now_ms", "began_ms", "ends_ms", "name"),
    [
        (ms(2026, 11, 21), ms(2026, 11, 1), ms(2026, 12, 1), "2026-11"),
        (ms(2026, 12, 1), ms(2026, 12, 1), ms(2027, 1, 1), "2026-12"),
        (ms(2024, 3, 1) - 1, ms(2024, 2, 1), ms(2024, 3, 1), "2024-02"),
    ],
)
def test_a_month_is_the_calendars(now_ms, began_ms, ends_ms, name):
    month = month_of(now_ms)
    assert (month.began_ms, month.ends_ms, month.name) == (began_ms, ends_ms, name)


@pytest.mark.parametrize(
    ("used_micro", "left_micro", "warns"),
    [(0, 300, False), (149, 151, False), (150, 150, True), (400, 0, True)],
)
def test_a_cap_leaves_what_is_not_used_and_warns_in_time(used_micro, left_micro, warns):
    cap = SpendingCap(month_micro=300, alert_percent=50)
    assert (cap.left_micro(used_micro), cap.warns(used_micro)) == (left_micro, warns)


def priced(model: str, price_micro: int, count: int, *, free: int, state: HostState = HostState.ONLINE):
    gpus = tuple(gpu(f"GPU-{price_micro}-{number}", model=model) for number in range(count))
    plain = room()
    facts = replace(plain.host.facts, gpus=gpus)
    terms = replace(plain.host.terms, prices={model: price_micro})
    return replace(plain, host=replace(plain.host, facts=facts, terms=terms, state=state), free=gpus[:free])


def test_prices_are_of_gpus_that_could_be_had():
    (price,) = model_prices(
        [
            priced("A", 500, 1, free=1),
            priced("A", 300, 4, free=0),
            priced("A", 900, 2, free=2),
            priced("A", 1, 8, free=8, state=HostState.PAUSED),
            priced("B", 1, 8, free=8, state=HostState.LOST),
        ]
    )
    assert (price.gpu_model, price.host_count, price.gpu_count, price.gpu_count_free) == ("A", 3, 7, 3)
    assert (price.price_micro_min, price.price_micro_median, price.price_micro_max) == (300, 300, 900)


def test_what_is_not_for_sale_has_no_price():
    unpriced = priced("A", 500, 1, free=1)
    terms = replace(unpriced.host.terms, prices={})
    assert model_prices([replace(unpriced, host=replace(unpriced.host, terms=terms))]) == []
