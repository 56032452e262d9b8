"""Many rows in one statement, through the driver: to compile a statement costs more than to run it.

SQLite runs a prepared statement again and again for next to nothing. PostgreSQL takes new rows by COPY, and
changes as one list for each column: a statement each would cost more than what it does.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Connection,
    CursorResult,
    Integer,
    LargeBinary,
    Select,
    String,
    Table,
    any_,
    bindparam,
    func,
    literal_column,
    select,
)

if TYPE_CHECKING:
    import psycopg

Values = dict[str, Any]
IDS_A_STATEMENT = 500
# Below this a plain statement each costs less than to parse the one for all.
_ROWS_MIN = 4
_WAS, _NEW, _IDS = "was_", "new_", "ids_"
# Between the items of a list, and in place of one that is NULL. No text of ours holds them, and JSON can't.
_BETWEEN, _NULL = "\x1f", "\x1e"
# Made once: to make one costs more than to use it.
_ENCODER = json.JSONEncoder(separators=(",", ":"))
# What COPY gives a meaning to.
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def insert_rows(connection: Connection, table: Table, rows: Sequence[Values]) -> None:
    if not rows:
        return
    if not _at_once(connection, rows):
        names = tuple(rows[0])
        connection.exec_driver_sql(
            _insert(table.name, names, _mark(connection)), _listed_by_row(table, names, rows)
        )
        return
    names = tuple(rows[0])
    columns = [_copied(table.c[name], [row[name] for row in rows]) for name in names]
    lines = "".join(["\t".join(values) + "\n" for values in zip(*columns, strict=True)])
    raw = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
    with raw.cursor() as cursor, cursor.copy(f"COPY {table.name} ({', '.join(names)}) FROM STDIN") as copy:
        copy.write(lines)


def update_rows(connection: Connection, table: Table, was: Sequence[Values], new: Sequence[Values]) -> bool:
    """Each row that still is as `was` says becomes `new`; False: one of them no longer is."""
    if _at_once(connection, was):
        columns = _columns(table, was, _WAS) | _columns(table, new, _NEW)
        lists = _lists(columns.values(), len(was))
        if lists is not None:
            types = [_type(table.c[name]) for name in (*was[0], *new[0])]
            done = connection.exec_driver_sql(
                f"UPDATE {table.name} AS t SET {', '.join(f'{name} = v.{_NEW}{name}' for name in new[0])}"  # noqa: S608 - names of our own tables
                f" FROM {_unnested(columns, types)}"
                f" WHERE {' AND '.join(f't.{name} = v.{_WAS}{name}' for name in was[0])}",
                tuple(lists),
            )
            return done.rowcount == len(was)
    before, after = tuple(was[0]), tuple(new[0])
    values = zip(_listed_by_row(table, after, new), _listed_by_row(table, before, was), strict=True)
    statement = _update(table.name, before, after, _mark(connection))
    done = connection.exec_driver_sql(statement, [to + of for to, of in values])
    return done.rowcount == len(was)


def add_to_rows(connection: Connection, column: Column[int], amounts: Mapping[str, int], guard: str) -> int:
    """Adds to a column of the rows with these ids, if the guard holds of them; of how many it did."""
    table, rows = column.table, [{"of": key, "by": amount} for key, amount in amounts.items()]
    assert isinstance(table, Table), "a column of a table"
    if _at_once(connection, rows):
        lists = _lists([list(amounts), [str(amount) for amount in amounts.values()]], len(rows))
        assert lists is not None, "no id holds what stands between"
        done = connection.exec_driver_sql(
            f"UPDATE {table.name} AS t SET {column.name} = {column.name} + v.by"  # noqa: S608 - as above
            f" FROM {_unnested(('of', 'by'), ('text', 'bigint'))} WHERE t.id = v.of AND {guard}",
            tuple(lists),
        )
        return done.rowcount
    mark = _mark(connection)
    statement = (
        f"UPDATE {table.name} SET {column.name} = {column.name} + {mark}"  # noqa: S608 - as above
        f" WHERE id = {mark} AND {guard}"
    )
    given = [(amount, key) for key, amount in amounts.items()]
    return connection.exec_driver_sql(statement, given).rowcount


def _mark(connection: Connection) -> str:
    return "%s" if connection.dialect.name == "postgresql" else "?"


@lru_cache(maxsize=64)
def _insert(table: str, names: tuple[str, ...], mark: str) -> str:
    marks = ", ".join([mark] * len(names))
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})"  # noqa: S608 - names of our own tables


@lru_cache(maxsize=64)
def _update(table: str, was: tuple[str, ...], new: tuple[str, ...], mark: str) -> str:
    values = ", ".join([f"{name} = {mark}" for name in new])
    guard = " AND ".join([f"{name} = {mark}" for name in was])
    return f"UPDATE {table} SET {values} WHERE {guard}"  # noqa: S608 - as above


def _listed_by_row(table: Table, names: Sequence[str], rows: Sequence[Values]) -> list[tuple[Any, ...]]:
    """The values of each row in this order, as the driver takes them."""
    encoded = _encoded(table)
    if encoded.isdisjoint(names):
        return [tuple([row[name] for name in names]) for row in rows]
    return [
        tuple([
            _json(row[name]) if name in encoded and row[name] is not None else row[name] for name in names
        ])
        for row in rows
    ]  # fmt: skip


@lru_cache(maxsize=64)
def _encoded(table: Table) -> frozenset[str]:
    return frozenset(column.name for column in table.c if isinstance(column.type, JSON))


def rows_among(
    connection: Connection, query: Select[Any], column: Column[str], ids: Iterable[str]
) -> CursorResult[Any]:
    """The query's rows whose column is one of these. However many they are, it is the same statement, so let
    the query be always the same object: then it is put together and prepared only once."""
    if connection.dialect.name == "postgresql":
        return connection.execute(_among_array(query, column), {_IDS: _BETWEEN.join(ids)})
    return connection.execute(_among_json(query, column), {_IDS: _json(list(ids))})


def rows_among_pairs(
    connection: Connection, first: Column[str], second: Column[str], pairs: Sequence[tuple[str, str]]
) -> CursorResult[Any]:
    """All columns of the table's rows in which these two are one of the pairs."""
    table = first.table
    assert isinstance(table, Table), "a column of a table"
    if connection.dialect.name == "postgresql":
        given = tuple(_BETWEEN.join(column) for column in zip(*pairs, strict=True)) or ("", "")
        chosen, one, other = _unnested(("one", "other"), ("text", "text")), "v.one", "v.other"
    else:
        given, chosen = (_json(list(pairs)),), "json_each(?) AS v"
        one, other = (f"json_extract(v.value, '$[{place}]')" for place in (0, 1))
    return connection.exec_driver_sql(
        f"SELECT t.* FROM {chosen} CROSS JOIN {table.name} AS t"  # noqa: S608 - as above
        f" WHERE t.{first.name} = {one} AND t.{second.name} = {other}",
        given,
    )


def delete_among(connection: Connection, column: Column[str], ids: Sequence[str]) -> None:
    """The rows whose column is one of these."""
    table = column.table
    assert isinstance(table, Table), "a column of a table"
    if connection.dialect.name == "postgresql":
        chosen, given = f"= ANY(string_to_array(%s, '{_BETWEEN}'))", _BETWEEN.join(ids)
    else:
        chosen, given = "IN (SELECT value FROM json_each(?))", _json(list(ids))
    connection.exec_driver_sql(f"DELETE FROM {table.name} WHERE {column.name} {chosen}", (given,))  # noqa: S608 - as above


@lru_cache(maxsize=64)
def _among_array(query: Select[Any], column: Column[str]) -> Select[Any]:
    return query.where(column == any_(func.string_to_array(bindparam(_IDS, type_=String), _BETWEEN)))


@lru_cache(maxsize=64)
def _among_json(query: Select[Any], column: Column[str]) -> Select[Any]:
    values = func.json_each(bindparam(_IDS, type_=String))
    return query.where(column.in_(select(literal_column("value")).select_from(values)))


def _at_once(connection: Connection, rows: Sequence[Values]) -> bool:
    return connection.dialect.name == "postgresql" and len(rows) >= _ROWS_MIN


def _columns(table: Table, rows: Sequence[Values], prefix: str) -> dict[str, list[str]]:
    return {prefix + name: _listed(table.c[name], [row[name] for row in rows]) for name in rows[0]}


def _lists(columns: Iterable[Sequence[str]], count: int) -> list[str] | None:
    """Each column as one text; None: one of them holds what should stand between."""
    lists = [_BETWEEN.join(column) for column in columns]
    return lists if all(joined.count(_BETWEEN) == count - 1 for joined in lists) else None


def _unnested(names: Iterable[str], types: Iterable[str]) -> str:
    arrays = ", ".join(f"string_to_array(%s::text, '{_BETWEEN}', '{_NULL}')::{kind}[]" for kind in types)
    return f"unnest({arrays}) AS v ({', '.join(names)})"


def _listed(column: Column[Any], values: Sequence[Any]) -> list[str]:
    match column.type:
        case Integer():
            return [_NULL if value is None else str(value) for value in values]
        case LargeBinary():
            return [_NULL if value is None else "\\x" + value.hex() for value in values]
        case JSON():
            # Many are the same value: what was witnessed at one moment.
            known = {id(value): _json(value) for value in {id(value): value for value in values}.values()}
            return [_NULL if value is None else known[id(value)] for value in values]
        case _:
            # One that looks like NULL is made to look like two, which `_lists` refuses.
            return [_NULL if value is None else str(value).replace(_NULL, _BETWEEN) for value in values]


def _copied(column: Column[Any], values: Sequence[Any]) -> list[str]:
    match column.type:
        case Integer():
            return ["\\N" if value is None else str(value) for value in values]
        case LargeBinary():
            return ["\\N" if value is None else "\\\\x" + value.hex() for value in values]
        case JSON():
            return _escaped([None if value is None else _json(value) for value in values])
        case _:
            return _escaped([None if value is None else str(value) for value in values])


def _escaped(values: Sequence[str | None]) -> list[str]:
    """Most have nothing to escape, and a look at all of a column is cheaper than one at each value."""
    whole = "".join([value for value in values if value])
    if any(character in whole for character in "\\\t\n\r"):
        return ["\\N" if value is None else value.translate(_ESCAPES) for value in values]
    return ["\\N" if value is None else value for value in values]


def _type(column: Column[Any]) -> str:
    match column.type:
        case BigInteger():
            return "bigint"
        case Integer():
            return "integer"
        case Boolean():
            return "boolean"
        case LargeBinary():
            return "bytea"
        case JSON():
            return "json"
        case _:
            return "text"


def _json(value: object) -> str:
    return _ENCODER.encode(value)
