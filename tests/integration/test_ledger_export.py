"""The books as other programs read them, and what those programs say of them."""

import csv
import io
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ledger import book, chart, engine, export
from ledger.entries import withdraw
from ledger.money import format_credits
from tests.support import ledger as make
from tests.support.ledger import BUYER, SELLER, number_id, post
from tests.support.need import need

DAY_MS = 86_400_000
START_MS = 1_780_000_000_000


@pytest.fixture
def ledger(ledger_engine):
    """Three days of every kind of transfer, in two assets."""
    make.start(ledger_engine)
    gold = [chart.wallet(BUYER, "gold9"), chart.earnings(SELLER, "gold9")]
    with ledger_engine.begin() as conn:
        book.open_accounts(conn, gold, 1)
    in_gold = replace(make.deposit(90, 77), debit="issuance@gold9", credit=gold[0])
    days = [
        [make.deposit(1, 10**12 + 1), make.hold(2, 500_000), make.capture(3, 100, 10, 1), in_gold],
        [make.capture(4, 123_456, 7, 2), make.refund(5, 4, 45, 5), make.hold(6, 10**15)],
        [
            make.release(7, 376_444), make.adjust(8, 7, chart.wallet(BUYER), chart.ADJUSTMENTS, 20),
            withdraw(
                transfer_id=number_id(9), account_id=SELLER, amount_micro=60, event_ms=9, ref='=1+"1"\\'
            ),
            replace(make.deposit(10, 5), ref="two, three"),
        ],
    ]  # fmt: skip
    for number, batch in enumerate(days):
        for one in batch:
            post(ledger_engine, one, now_ms=START_MS + number * DAY_MS)
    return ledger_engine


def written(ledger, lines_of):
    with engine.reading(ledger) as conn:
        return "".join(lines_of(export.transfers(conn)))


def check(program: Path | str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(program), *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def bean_check():
    path = Path(sys.executable).with_name("bean-check")
    need(condition=path.exists(), what="bean-check", how="make setup (it is in the dev extra)")
    return path


@pytest.fixture
def hledger():
    path = shutil.which("hledger")
    need(condition=path is not None, what="hledger", how="apt-get install hledger")
    return path


def test_bean_check_finds_no_fault_in_the_books_and_one_in_false_ones(ledger, bean_check, tmp_path):
    text = written(ledger, export.beancount_lines)
    journal = tmp_path / "books.beancount"
    journal.write_text(text)
    good = check(bean_check, "--no-cache", str(journal))
    assert good.returncode == 0, good.stderr
    assert text.count(" balance ") > 10
    journal.write_text(text.replace("0.000007", "0.000008", 1))
    assert check(bean_check, "--no-cache", str(journal)).returncode != 0
    last = text.rstrip().rpartition("\n")[2]
    amount = last.split()[-4]
    wrong = f"{amount[:-1]}{(int(amount[-1]) + 1) % 10}"
    journal.write_text(text.replace(last, last.replace(amount, wrong)))
    assert "Balance failed" in check(bean_check, "--no-cache", str(journal)).stderr


def test_hledger_finds_no_fault_in_the_books_and_one_in_false_ones(ledger, hledger, tmp_path):
    text = written(ledger, export.hledger_lines)
    journal = tmp_path / "books.journal"
    journal.write_text(text)
    good = check(hledger, "-f", str(journal), "check")
    assert good.returncode == 0, good.stderr
    account = export.account_name(chart.wallet(BUYER))
    shown = check(hledger, "-f", str(journal), "balance", account, "--no-total", "--flat", "cur:CREDIT")
    with engine.reading(ledger) as conn:
        balance = book.balance(conn, chart.wallet(BUYER))
    assert shown.stdout.split()[0] == format_credits(-balance)
    for old, new in (("= -0.000090", "= -0.000091"), ("  -0.000090", "  -0.000089")):
        journal.write_text(text.replace(old, new, 1))
        assert check(hledger, "-f", str(journal), "check").returncode != 0


def test_csv_and_json_say_all_there_is_and_round_nothing(ledger):
    rows = list(csv.DictReader(io.StringIO(written(ledger, export.csv_lines))))
    objects = [json.loads(line) for line in written(ledger, export.json_lines).splitlines()]
    with engine.reading(ledger) as conn:
        posted = list(export.transfers(conn))
        some = list(export.transfers(conn, after_seq=3, last_seq=5))
    assert some == posted[3:5]
    assert len(rows) == len(objects) == len(posted) == 10
    for row, one, transfer in zip(rows, objects, posted, strict=True):
        assert row["amount"] == one["amount"] == format_credits(transfer.transfer.amount_micro)
        assert row["id"] == one["id"] == str(transfer.transfer.id)
        assert one["ref"] == transfer.transfer.ref
        assert not row["ref"].startswith("=")
    assert objects[0]["posted_time"] == "2026-05-28T20:26:40.000+00:00"
    assert objects[0]["credit_balance"] == "1000000.000001"


def test_names_of_accounts_never_meet():
    owners = ("a_b", "a-b", "a.b", "a-5Fb", "A_b", "a")
    names = {export.account_name(chart.wallet(owner)) for owner in owners}
    assert len(names) == len(owners)
