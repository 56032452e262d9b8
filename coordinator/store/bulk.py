"""Many rows in one statement.

SQLite runs a prepared statement again and again for next to nothing. PostgreSQL is asked once for all rows,
which travel as JSON: a statement each would cost more than what it does.
"""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Connection,
    Integer,
    LargeBinary,
    Table,
    bindparam,
    insert,
    update,
)

Values = dict[str, Any]
IDS_A_STATEMENT = 500
# Below this a plain statement each costs less than to parse the one for all.
_ROWS_MIN = 4
_WAS, _NEW = "was_", "new_"


def insert_rows(connection: Connection, table: Table, rows: Sequence[Values]) -> None:
    if not rows:
        return
    if not _at_once(connection, rows):
        connection.execute(insert(table), list(rows))
        return
    names = ", ".join(rows[0])
    connection.exec_driver_sql(
        f"INSERT INTO {table.name} ({names}) SELECT {names}"  # noqa: S608 - names of our own tables
        f" FROM json_to_recordset(%s::json) AS v ({_typed(table, rows[0])})",
        (_json(rows),),
    )


def update_rows(connection: Connection, table: Table, was: Sequence[Values], new: Sequence[Values]) -> bool:
    """Each row that still is as `was` says becomes `new`; False: one of them no longer is."""
    rows = [
        {_WAS + name: value for name, value in before.items()}
        | {_NEW + name: value for name, value in after.items()}
        for before, after in zip(was, new, strict=True)
    ]
    if not _at_once(connection, rows):
        statement = (
            update(table)
            .where(*(table.c[name] == bindparam(_WAS + name) for name in was[0]))
            .values({name: bindparam(_NEW + name, type_=table.c[name].type) for name in new[0]})
        )
        return connection.execute(statement, rows).rowcount == len(rows)
    types = ", ".join(
        [f"{_WAS}{name} {_type(table.c[name])}" for name in was[0]]
        + [f"{_NEW}{name} {_type(table.c[name])}" for name in new[0]]
    )
    done = connection.exec_driver_sql(
        f"UPDATE {table.name} AS t SET {', '.join(f'{name} = v.{_NEW}{name}' for name in new[0])}"  # noqa: S608
        f" FROM json_to_recordset(%s::json) AS v ({types})"
        f" WHERE {' AND '.join(f't.{name} = v.{_WAS}{name}' for name in was[0])}",
        (_json(rows),),
    )
    return done.rowcount == len(rows)


def _at_once(connection: Connection, rows: Sequence[Values]) -> bool:
    return connection.dialect.name == "postgresql" and len(rows) >= _ROWS_MIN


def _typed(table: Table, row: Values) -> str:
    return ", ".join(f"{name} {_type(table.c[name])}" for name in row)


def _type(column: Column[Any]) -> str:
    match column.type:
        case BigInteger():
            return "bigint"
        case Integer():
            return "integer"
        case LargeBinary():
            return "bytea"
        case JSON():
            return "json"
        case _:
            return "text"


def _json(rows: Sequence[Values]) -> str:
    return json.dumps(rows, default=_bytes, separators=(",", ":"))


def _bytes(value: object) -> str:
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    raise TypeError(f"a {type(value).__name__} is no column's value")
