"""Writes of one kind share a statement: in order, for each its own answer, and nobody falls with another."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Engine,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    insert,
    select,
)

from coordinator.store.bulk import add_to_rows, insert_rows, update_rows
from coordinator.store.database import Database
from coordinator.store.ports import Transaction
from ledger.engine import make_engine

metadata = MetaData()
thing = Table(
    "thing",
    metadata,
    Column("id", String(8), primary_key=True),
    Column("count", BigInteger),
    Column("small", Integer),
    Column("data", LargeBinary),
    Column("more", JSON(none_as_null=True)),
)


@pytest.fixture
def sqlite_engine(tmp_path: Path) -> Iterator[Engine]:
    engine = make_engine(f"sqlite:///{tmp_path / 'bulk.db'}")
    yield engine
    engine.dispose()


@pytest.fixture
def postgres_engine(postgres_url: str) -> Iterator[Engine]:
    engine = make_engine(postgres_url)
    yield engine
    engine.dispose()


@pytest.fixture(params=["sqlite_engine", pytest.param("postgres_engine", marks=pytest.mark.postgres)])
def engine(request: pytest.FixtureRequest) -> Engine:
    found: Engine = request.getfixturevalue(request.param)
    metadata.create_all(found)
    return found


def rows_of(count: int) -> list[dict[str, object]]:
    return [
        {
            "id": f"id{number}",
            "count": 2**53 + number,
            "small": None if number % 2 else number,
            "data": bytes([0, 255, number % 256]),
            "more": None if number % 3 == 0 else {"text": "ä'\"\\", "list": [number, None]},
        }
        for number in range(count)
    ]


@pytest.mark.parametrize("count", [1, 3, 4, 700])
def test_rows_come_back_as_they_went_in(engine: Engine, count: int) -> None:
    rows = rows_of(count)
    with engine.begin() as connection:
        insert_rows(connection, thing, rows)
        found = connection.execute(select(thing).order_by(thing.c.count)).mappings()
        assert [dict(row) for row in found] == rows
        # What is null in JSON is null to the database too.
        nulls = select(thing.c.id).where(thing.c.more.is_(None)).order_by(thing.c.count)
        assert [row.id for row in connection.execute(nulls)] == [f"id{n}" for n in range(0, count, 3)]


@pytest.mark.parametrize("count", [1, 3, 4, 700])
def test_only_rows_that_still_are_as_they_were_change(engine: Engine, count: int) -> None:
    rows = rows_of(count)
    was = [{"id": row["id"], "count": row["count"]} for row in rows]
    new = [{"count": n, "data": bytes([n % 256]), "more": None} for n in range(count)]
    with engine.begin() as connection:
        connection.execute(insert(thing), rows)
        assert update_rows(connection, thing, was, new)
        found = connection.execute(select(thing.c.count, thing.c.data, thing.c.more).order_by(thing.c.count))
        assert [tuple(row) for row in found] == [(n, bytes([n % 256]), None) for n in range(count)]
        assert not update_rows(connection, thing, was, new)


@pytest.mark.parametrize("count", [1, 4, 700])
def test_amounts_are_added_where_the_guard_holds(engine: Engine, count: int) -> None:
    rows = rows_of(count)
    with engine.begin() as connection:
        connection.execute(insert(thing), rows)
        amounts = {f"id{n}": n for n in range(count)}
        assert add_to_rows(connection, thing.c.count, amounts, "small IS NOT NULL") == (count + 1) // 2
        found = connection.execute(select(thing.c.count).order_by(thing.c.count)).scalars()
        assert sorted(found) == sorted(2**53 + (n if n % 2 else 2 * n) for n in range(count))


@pytest.mark.parametrize("text", ["\x1f", "\x1e", "\t\n\r\\N\\x", "", "é{},\"'"])
def test_no_character_means_anything(engine: Engine, text: str) -> None:
    more = {"text": text}
    rows = [{"id": f"{n}{text}", "count": n, "small": n, "data": b"", "more": more} for n in range(5)]
    with engine.begin() as connection:
        insert_rows(connection, thing, rows)
        assert update_rows(connection, thing, [{"id": row["id"]} for row in rows], [{"more": more}] * 5)
        found = connection.execute(select(thing).order_by(thing.c.count)).mappings()
        assert [dict(row) for row in found] == rows


def test_what_waits_for_the_same_function_is_given_to_it_at_once(sqlite_engine: Engine) -> None:
    shares: list[list[int]] = []
    begun, go = threading.Event(), threading.Event()

    def hold_up(_: Transaction) -> None:
        begun.set()
        go.wait(10)

    def doubled(_: Transaction, items: Sequence[int]) -> list[int]:
        shares.append(list(items))
        return [2 * item for item in items]

    database = Database(sqlite_engine, lambda _: None)
    try:
        held = database.write(hold_up)
        begun.wait(10)
        waiting = [database.gather(doubled, item) for item in range(5)]
        go.set()
        assert [answer.result(10) for answer in waiting] == [0, 2, 4, 6, 8]
        assert held.result(10) is None
    finally:
        database.close()
    assert shares == [[0, 1, 2, 3, 4]]


def test_an_item_that_fails_takes_nobody_with_it(sqlite_engine: Engine) -> None:
    begun, go = threading.Event(), threading.Event()

    def hold_up(_: Transaction) -> None:
        begun.set()
        go.wait(10)

    def divided(_: Transaction, items: Sequence[int]) -> list[int]:
        return [12 // item for item in items]

    database = Database(sqlite_engine, lambda _: None)
    try:
        database.write(hold_up)
        begun.wait(10)
        waiting = [database.gather(divided, item) for item in (1, 2, 0, 3, 4)]
        go.set()
        assert [waiting[place].result(10) for place in (0, 1, 3, 4)] == [12, 6, 4, 3]
        with pytest.raises(ZeroDivisionError):
            waiting[2].result(10)
    finally:
        database.close()


def test_what_is_read_with_the_same_function_is_read_together(sqlite_engine: Engine) -> None:
    shares: list[list[int]] = []
    begun, go = threading.Event(), threading.Event()

    def divided(_: Transaction, items: Sequence[int]) -> list[int]:
        shares.append(list(items))
        begun.set()
        go.wait(10)
        return [12 // item for item in items]

    database = Database(sqlite_engine, lambda _: None)
    try:
        first = database.gather_read(divided, 1)
        begun.wait(10)
        waiting = [database.gather_read(divided, item) for item in (2, 0, 3)]
        go.set()
        assert first.result(10) == 12
        assert [waiting[place].result(10) for place in (0, 2)] == [6, 4]
        with pytest.raises(ZeroDivisionError):
            waiting[1].result(10)
    finally:
        database.close()
    assert shares == [[1], [2, 0, 3], [2], [0], [3]], "what fails takes nobody with it"
