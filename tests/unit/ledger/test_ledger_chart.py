"""The chart of accounts and the house rules of the ledger's own source."""

import ast
from pathlib import Path

import pytest

import ledger
from ledger import chart
from ledger.chart import CHART, AccountKind, CodeError, parse_code
from ledger.entries import TRANSFERS, TransferKind

SOURCES = sorted(Path(next(iter(ledger.__path__))).glob("*.py"))


def test_codes_are_written_and_read_alike():
    for code in (
        "issuance",
        "fee",
        "wallet:acct_x",
        "hold:job_1",
        "earnings:a.b-c",
        "wallet:acct_x@gold",
        "fee@gold",
    ):
        assert str(parse_code(code)) == code
    assert chart.wallet("acct_x") == "wallet:acct_x"
    assert chart.hold("job_1") == "hold:job_1"
    assert chart.earnings("acct_x", asset="gold") == "earnings:acct_x@gold"


@pytest.mark.parametrize(
    "code",
    ["", "wallet", "wallet:", "fee:x", "purse:x", "wallet:a b", "wallet:a,b", "wallet:-a", "wallet:x@",
     "Wallet:x", "wallet:x@credit", "wallet:" + "x" * 65, "wallet:x\n", "wallet:x@GOLD"],
)  # fmt: skip
def test_what_is_no_code_is_refused_with_a_sentence(code):
    with pytest.raises(CodeError, match=r"is no account code|has one name"):
        parse_code(code)


def test_the_tables_are_total_and_their_numbers_unique():
    assert set(CHART) == set(AccountKind)
    assert set(TRANSFERS) == set(TransferKind)
    assert sorted(line.number for line in CHART.values()) == list(range(1, len(CHART) + 1))
    assert sorted(line.number for line in TRANSFERS.values()) == list(range(1, len(TRANSFERS) + 1))


def test_what_people_own_and_the_fee_never_go_below_zero():
    for kind in (AccountKind.WALLET, AccountKind.HOLD, AccountKind.EARNINGS, AccountKind.FEE):
        assert CHART[kind].floor_micro == 0


def test_no_float_is_written_divided_or_asked_for_in_the_ledger():
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            where = f"{path.name}:{getattr(node, 'lineno', 0)}"
            assert not (isinstance(node, ast.Constant) and isinstance(node.value, float)), where
            assert not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)), where
            assert not (isinstance(node, ast.Name) and node.id in {"float", "round", "Decimal"}), where


def test_every_file_of_the_ledger_is_short():
    assert len(SOURCES) > 10
    for path in SOURCES:
        assert len(path.read_text().splitlines()) < 400, path.name
