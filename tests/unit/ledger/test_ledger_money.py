"""Integer money: exhaustively where it is small, by property where it is large."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import money
from ledger.money import Rounding

LARGE = st.integers(min_value=0, max_value=money.TRANSFER_MICRO_MAX)
PPM = st.integers(min_value=0, max_value=money.PPM)
MS = st.integers(min_value=0, max_value=10 * 366 * 86_400_000)


def test_every_small_split_adds_up_and_is_within_one_unit():
    for amount in range(150):
        for fee_ppm in (0, 1, 3_333, 25_000, 33_333, 100_000, 333_333, 500_000, 666_667, 999_999, money.PPM):
            seller, fee = money.split_fee(amount, fee_ppm)
            assert seller + fee == amount
            assert 0 <= fee <= amount
            assert 0 <= Fraction(amount * fee_ppm, money.PPM) - fee < 1


@given(LARGE, PPM)
def test_every_large_split_adds_up_and_is_within_one_unit(amount, fee_ppm):
    seller, fee = money.split_fee(amount, fee_ppm)
    assert seller + fee == amount
    assert 0 <= Fraction(amount * fee_ppm, money.PPM) - fee < 1


@given(st.integers(0, 10**13), st.lists(st.integers(0, 3_600_000), max_size=50), PPM)
def test_charges_and_fees_telescope_however_time_is_cut(rate, pieces, fee_ppm):
    charged = paid_seller = paid_fee = elapsed = 0
    for piece in pieces:
        elapsed += piece
        total = money.charge_micro(rate, elapsed)
        seller, fee = money.split_fee(total, fee_ppm)
        assert total >= charged
        assert fee >= paid_fee
        assert seller >= paid_seller
        charged, paid_seller, paid_fee = total, seller, fee
    assert charged == money.charge_micro(rate, sum(pieces))
    assert (paid_seller, paid_fee) == money.split_fee(charged, fee_ppm)


@given(st.integers(0, 10**13), MS)
def test_a_charge_is_the_exact_price_rounded_down(rate, elapsed_ms):
    exact = Fraction(rate * elapsed_ms, money.MS_PER_HOUR)
    assert 0 <= exact - money.charge_micro(rate, elapsed_ms) < 1


@pytest.mark.parametrize("rounding", Rounding)
def test_rounding_is_what_its_name_says(rounding):
    for value in range(-60, 61):
        for denominator in (1, 2, 3, 4, 7):
            exact = Fraction(value, denominator)
            wanted = {
                Rounding.FLOOR: exact.__floor__(),
                Rounding.CEILING: exact.__ceil__(),
                Rounding.HALF_EVEN: round(exact),
            }[rounding]
            assert money.multiply_divide(value, 1, denominator, rounding) == wanted


@given(LARGE)
def test_what_is_written_is_read_back(amount):
    assert money.parse_credits(money.format_credits(amount)) == amount


@pytest.mark.parametrize(
    ("text", "micro"),
    [("5.25", 5_250_000), ("0", 0), ("7", 7_000_000), ("0.000001", 1), ("10.5", 10_500_000)],
)
def test_amounts_are_read_as_people_write_them(text, micro):
    assert money.parse_credits(text) == micro


@pytest.mark.parametrize(
    "text",
    ["", "-1", "+1", "1e3", "0.0000001", ".5", "5.", "1,5", " 1", "١", "nan", "12345678901", "9999999999"],
)
def test_what_is_no_amount_is_refused_with_a_sentence(text):
    with pytest.raises(money.MoneyError, match="credits"):
        money.parse_credits(text)


def test_negative_balances_are_written_with_their_sign():
    assert money.format_credits(-1) == "-0.000001"
    assert money.format_credits(-5_250_000) == "-5.250000"


@pytest.mark.parametrize("wrong", [1.0, True, "1", None])
def test_only_ints_are_money(wrong):
    with pytest.raises(TypeError):
        money.format_credits(wrong)
    with pytest.raises(TypeError):
        money.multiply_divide(wrong, 1, 1, Rounding.FLOOR)


@pytest.mark.parametrize(
    "call",
    [
        lambda: money.split_fee(-1, 0),
        lambda: money.split_fee(1, -1),
        lambda: money.split_fee(1, money.PPM + 1),
        lambda: money.charge_micro(-1, 1),
        lambda: money.charge_micro(1, -1),
        lambda: money.multiply_divide(1, 1, 0, Rounding.FLOOR),
    ],
)
def test_what_makes_no_sense_is_refused(call):
    with pytest.raises(ValueError, match=r"negative|million|positive"):
        call()
