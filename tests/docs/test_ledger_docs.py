"""docs/ledger.md says what the code does."""

import re
from pathlib import Path

from ledger.chart import CHART
from ledger.entries import TRANSFERS, Status
from tests.support import ledger as make
from tests.support.ledger import MemoryLedger, statuses

PAGE = (Path(__file__).parents[2] / "docs/ledger.md").read_text()


def test_the_chart_is_whole_and_its_floors_are_right():
    for kind, line in CHART.items():
        owner = ":[A-Z]+" if line.owned else ""
        floor = "none" if line.floor_micro is None else str(line.floor_micro)
        assert re.search(
            rf"^\| `{kind}{owner}` \| {re.escape(line.means)} \| {floor} \|$", PAGE, re.MULTILINE
        ), kind


def test_every_kind_of_transfer_and_every_refusal_is_named_in_order():
    rows = re.findall(r"^\| `([a-z]+)` \| [^|]*→", PAGE, re.MULTILINE)
    assert rows == [kind.value for kind in TRANSFERS]
    named = re.search(r"A refusal is the first that applies of: (.*?)\.\n", PAGE, re.DOTALL)
    assert named is not None
    assert re.findall(r"`(\w+)`", named[1]) == [status.value for status in Status][2:]


def test_the_example_comes_out_as_it_says():
    credit = make.CREDIT
    book = MemoryLedger(make.accounts_of(make.BUYER, make.SELLER))
    outcomes = book.post(
        [
            make.deposit(1, 10 * credit), make.hold(2, 6 * credit), make.capture(3, 1_950_000, 195_000, 39),
            make.capture(4, 50_000, 5_000, 40), make.refund(5, 4, 45_000, 5_000), make.release(6, 4 * credit),
        ],
        1,
    )  # fmt: skip
    assert statuses(outcomes) == ["posted"] * 6
    sums = re.search(r"\*\*sums to zero\*\* \| (.*) \|", PAGE)
    assert sums is not None
    said = [round(float(cell.strip("* ")) * credit) for cell in sums[1].split("|")]
    codes = ["issuance", f"wallet:{make.BUYER}", f"hold:{make.JOB}", f"earnings:{make.SELLER}", "fee"]
    assert said == [book.accounts[code].balance_micro for code in codes]
    assert sum(said) == 0
