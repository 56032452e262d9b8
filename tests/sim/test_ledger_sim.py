"""Long random lives of a ledger: against a model, across databases, and with everything lost once."""

import random
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch
from uuid import UUID

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ledger import audit, book, engine, entries, seal, tables
from ledger.chart import ADJUSTMENTS, FEE, ISSUANCE, PAYOUTS, earnings, hold, wallet
from ledger.engine import make_engine
from ledger.entries import Transfer
from ledger.postgres import PostgresStore
from ledger.rules import Batch, in_parts
from ledger.sqlite import SqliteStore
from tests.support import ledger as make
from tests.support.ledger import MemoryLedger, statuses
from tests.support.ledger_model import Model

BUYERS, SELLERS, JOBS = ("b0", "b1"), ("s0", "s1"), ("j0", "j1", "j2")
NAMES = BUYERS + SELLERS
IDS = st.integers(1, 40).map(make.number_id)
AMOUNTS = st.one_of(st.integers(1, 30), st.integers(1, 2**53 - 1))
NUMBERS = st.integers(1, 12)


@st.composite
def transfers(draw: st.DrawFn) -> Transfer:
    """Any transfer, from so few ids and names that they meet often."""
    the_id, amount, when = draw(IDS), draw(AMOUNTS), draw(st.integers(0, 99))
    buyer, seller, job = (
        draw(st.sampled_from(BUYERS)),
        draw(st.sampled_from(SELLERS)),
        draw(st.sampled_from(JOBS)),
    )
    common: dict[str, Any] = {"transfer_id": the_id, "event_ms": when}
    match draw(st.sampled_from(["deposit", "hold", "capture", "capture", "release", "refund", "withdraw"])):
        case "deposit":
            return entries.deposit(**common, account_id=buyer, amount_micro=amount)
        case "hold":
            return entries.hold(**common, account_id=buyer, job_id=job, amount_micro=amount)
        case "capture":
            fee, window = draw(st.integers(0, min(amount, 9))), draw(st.none() | NUMBERS)
            return entries.capture(
                **common, job_id=job, seller_id=seller, amount_micro=amount, fee_micro=fee, window_no=window
            )
        case "release":
            return entries.release(**common, account_id=buyer, job_id=job, amount_micro=amount)
        case "refund":
            return entries.refund(
                **common, corrects=draw(IDS), job_id=job, seller_id=seller, account_id=buyer,
                seller_micro=draw(st.integers(1, 30)), fee_micro=draw(st.integers(0, 5)), reason="as agreed",
            )  # fmt: skip
        case _:
            return entries.withdraw(**common, account_id=seller, amount_micro=amount)


class Faulty:
    """A driver that fails before its n-th statement, as a full disk or a lost line would."""

    def __init__(self, raw: sqlite3.Connection, countdown: int) -> None:
        self._raw, self._left = raw, countdown

    def _step(self) -> None:
        self._left -= 1
        if self._left == 0:
            raise sqlite3.OperationalError("disk I/O error")

    def execute(self, *args: Any) -> Any:
        self._step()
        return self._raw.execute(*args)

    def executemany(self, *args: Any) -> Any:
        self._step()
        return self._raw.executemany(*args)


@contextmanager
def failing_at(countdown: int) -> Iterator[None]:
    prepare = SqliteStore.__init__

    def spoiled(self: SqliteStore, conn: Any) -> None:
        prepare(self, conn)
        self._raw = Faulty(self._raw, countdown)  # type: ignore[assignment]

    with patch.object(SqliteStore, "__init__", spoiled):
        yield


class LedgerLife(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.ledger = make_engine("sqlite://")
        tables.create_all(self.ledger)
        make.start(self.ledger, NAMES)
        self.memory = MemoryLedger(make.accounts_of(*NAMES))
        self.model = Model()
        self.now_ms = 100
        self.seals: list[seal.Seal] = []

    @rule(
        batch=st.lists(transfers(), min_size=1, max_size=8),
        fault_at=st.integers(0, 12),
        late_ms=st.integers(-5, 5),
    )
    def post(self, batch: list[Transfer], fault_at: int, late_ms: int) -> None:
        """Sometimes it fails half way; it is then as if it had not been, and the same batch is sent again."""
        self.now_ms += late_ms
        if fault_at:
            with self.ledger.begin() as conn:
                before = make.heads(conn)
            try:
                with failing_at(fault_at), self.ledger.begin() as conn:
                    outcomes = book.post(conn, batch, self.now_ms)
            except sqlite3.OperationalError:
                with self.ledger.begin() as conn:
                    assert make.heads(conn) == before
                outcomes = make.post(self.ledger, *batch, now_ms=self.now_ms)
        else:
            outcomes = make.post(self.ledger, *batch, now_ms=self.now_ms)
        assert statuses(outcomes) == [self.model.expect(transfer) for transfer in batch]
        assert outcomes == self.memory.post(batch, self.now_ms)

    @rule()
    def seal(self) -> None:
        with self.ledger.begin() as conn:
            self.seals += seal.seal(conn, self.now_ms)

    @invariant()
    def everybody_has_what_the_model_says(self) -> None:
        model = self.model
        wanted = {ISSUANCE: -model.issued, PAYOUTS: model.paid_out, FEE: model.fee}
        wanted |= {wallet(name): model.wallets[name] for name in NAMES}
        wanted |= {earnings(name): model.earned[name] for name in NAMES}
        wanted |= {hold(job): budget.left for job, budget in model.budgets.items()}
        with engine.reading(self.ledger) as conn:
            found = book.balances(conn, list(wanted))
        assert {code: found.get(code, 0) for code in wanted} == wanted
        assert model.total() == model.issued

    def teardown(self) -> None:
        with engine.reading(self.ledger) as conn:
            assert list(audit.audit(conn, kept=tuple(self.seals))) == []
        self.ledger.dispose()


LedgerLife.TestCase.settings = settings(max_examples=40, stateful_step_count=25)
test_a_life_against_the_model = pytest.mark.slow(LedgerLife.TestCase)


def random_batches(seed: int, count: int) -> list[list[Transfer]]:
    """Seeded batches of every kind, with chains, repetitions and corrections."""
    dice = random.Random(seed)
    number = 0
    seen: list[Transfer] = []
    batches: list[list[Transfer]] = [
        [make.deposit(900_000 + n, 10**6, who=who) for n, who in enumerate(BUYERS)]
    ]
    for _ in range(count):
        batch: list[Transfer] = []
        for _ in range(dice.randint(1, 40)):
            number += 1
            job, buyer = f"j{dice.randint(0, 30)}", dice.choice(BUYERS)
            amount, linked = dice.randint(1, 400), dice.random() < 0.1
            kind = dice.choice(
                ["hold", "hold", "capture", "capture", "capture", "release", "adjust", "again"]
            )
            if kind == "hold":
                one = make.hold(number, amount * 20, job=job, who=buyer, linked=linked)
            elif kind == "capture":
                fee = dice.randint(0, amount)
                one = make.capture(
                    number, amount, fee, dice.choice([None, number]), job=job, who="s0", linked=linked
                )
            elif kind == "release":
                one = make.release(number, amount * dice.randint(1, 20), job=job, who=buyer)
            elif kind == "adjust" or not seen:
                one = make.adjust(
                    number, dice.randint(1, number), ADJUSTMENTS, wallet(buyer), amount // 9 + 1
                )
            else:
                one = dice.choice(seen)
            seen.append(one)
            batch.append(one)
        batches.append(batch)
    return batches


@pytest.mark.parametrize("size", [1, 3, 10])
def test_a_batch_decided_part_by_part_has_the_same_answers(size):
    memory = MemoryLedger(make.accounts_of(*NAMES))
    cuts = 0
    for number, batch in enumerate(random_batches(7, 40)):
        batch_in_parts = Batch(memory.snapshot(), number)
        parts = [batch_in_parts.decide(part) for part in in_parts(batch, size)]
        cuts += len(parts) - 1
        whole = memory.decide(batch, number)
        for name in ("outcomes", "posted", "opened", "closed"):
            assert [one for part in parts for one in getattr(part, name)] == getattr(whole, name)
        assert [key for part in parts for key in part.refused] == list(whole.refused)
        assert parts[-1].accounts == whole.accounts
    assert cuts > 50


@pytest.mark.postgres
@pytest.mark.parametrize(("seed", "part_transfers"), [(0, 1_000), (1, 12), (2, 3)])
def test_one_history_is_the_same_everywhere_to_the_byte(
    sqlite_ledger, postgres_ledger, monkeypatch, seed, part_transfers
):
    for store in (SqliteStore, PostgresStore):
        monkeypatch.setattr(store, "part_transfers", part_transfers)
    memory = MemoryLedger(make.accounts_of(*NAMES))
    ledgers = (sqlite_ledger, postgres_ledger)
    for ledger in ledgers:
        make.start(ledger, NAMES)
    posted = 0
    for number, batch in enumerate(random_batches(seed, 40)):
        wanted = memory.post(batch, number)
        posted += sum(outcome.ok for outcome in wanted)
        for ledger in ledgers:
            assert make.post(ledger, *batch, now_ms=number) == wanted
    assert posted > 150
    hashes, heads, lines = [], [], []
    for ledger in ledgers:
        with ledger.begin() as conn:
            seals = seal.seal(conn, 99)
            hashes.append([one.hash for one in seals])
            heads.append(make.heads(conn))
            lines.append([line for one in seals for line in seal.lines(conn, one)])
            assert list(audit.audit(conn)) == []
    assert lines[0] == lines[1]
    assert hashes[0] == hashes[1]
    assert heads[0] == heads[1]
    assert heads[0] == {code: (one.seq, one.balance_micro) for code, one in memory.accounts.items()}


@pytest.mark.parametrize("seed", range(10))
def test_whatever_is_lost_or_said_twice_each_transfer_counts_once(sqlite_ledger, seed):
    """A simulated world: callers whose requests, commits and replies get lost, come late and come again."""
    dice = random.Random(seed)
    make.start(sqlite_ledger, NAMES)
    pending: list[Sequence[Transfer]] = list(random_batches(seed, 12))
    answers: dict[UUID, set[tuple[str, int]]] = {}
    late: list[Sequence[Transfer]] = []
    now_ms = 1_000
    while pending:
        now_ms += dice.randint(-50, 100)
        batch = late.pop(dice.randrange(len(late))) if late and dice.random() < 0.3 else pending[0]
        fate = dice.choice(["answered", "answered", "commit lost", "reply lost", "said twice"])
        with sqlite_ledger.connect() as conn, conn.begin() as transaction:
            outcomes = book.post(conn, batch, now_ms)
            if fate == "commit lost":
                transaction.rollback()
        if fate == "said twice":
            late.append(batch)
        if fate in ("answered", "said twice"):
            for transfer, outcome in zip(batch, outcomes, strict=True):
                if outcome.status.value != "exists_with_different_content":
                    status = "posted" if outcome.ok else outcome.status.value
                    answers.setdefault(transfer.id, set()).add((status, outcome.seq))
            if batch is pending[0]:
                pending.pop(0)
    assert all(len(said) == 1 for said in answers.values())
    with sqlite_ledger.begin() as conn:
        seal.seal(conn, now_ms)
        assert list(audit.audit(conn)) == []
        assert book.trial_balance(conn)[0].total_micro == 0
