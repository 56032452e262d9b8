"""Many rows in one statement.

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
    ColumnElement,
    Connection,
    Insert,
    Integer,
    LargeBinary,
    Table,
    Update,
    any_,
    bindparam,
    func,
    insert,
    literal_column,
    select,
    text,
    update,
)

if TYPE_CHECKING:
    import psycopg

Values = dict[str, Any]
IDS_A_STATEMENT = 500
# Below this a plain statement each costs less than to parse the one for all.
_ROWS_MIN = 4
_WAS, _NEW = "was_", "new_"
# Between the items of a list, and in place of one that is NULL. No text of ours holds them, and JSON can't.
_BETWEEN, _NULL = "\x1f", "\x1e"
# What COPY gives a meaning to.
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def insert_rows(connection: Connection, table: Table, rows: Sequence[Values]) -> None:
    if not rows:
        return
    if not _at_once(connection, rows):
        connection.execute(_insert(table), list(rows))
        return
    names = list(rows[0])
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
    rows = [
        {_WAS + name: value for name, value in before.items()}
        | {_NEW + name: value for name, value in after.items()}
        for before, after in zip(was, new, strict=True)
    ]
    return connection.execute(_update(table, tuple(was[0]), tuple(new[0])), rows).rowcount == len(rows)


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
    statement = (
        update(table)
        .where(table.c.id == bindparam("of"), text(guard))
        .values({column: column + bindparam("by", type_=BigInteger)})
    )
    return connection.execute(statement, rows).rowcount


@lru_cache(maxsize=64)
def _insert(table: Table) -> Insert:
    return insert(table)


@lru_cache(maxsize=64)
def _update(table: Table, was: tuple[str, ...], new: tuple[str, ...]) -> Update:
    return (
        update(table)
        .where(*(table.c[name] == bindparam(_WAS + name) for name in was))
        .values({name: bindparam(_NEW + name, type_=table.c[name].type) for name in new})
    )


def among(connection: Connection, column: Column[str], ids: Sequence[str]) -> ColumnElement[bool]:
    """Is the column one of these? However many they are, it is the same statement, prepared once."""
    if connection.dialect.name == "postgresql":
        return column == any_(func.string_to_array(_BETWEEN.join(ids), _BETWEEN))
    return column.in_(select(literal_column("value")).select_from(func.json_each(json.dumps(list(ids)))))


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
            return [_NULL if value is None else _json(value) for value in values]
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
    return json.dumps(value, separators=(",", ":"))
