"""What the parts of a transaction have in common: what they speak to the database through."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeVar

from sqlalchemy import Column, Connection, Integer, RowMapping, Select, bindparam

from coordinator.store.bulk import IDS_A_STATEMENT, rows_among
from coordinator.store.ports import BROKEN
from coordinator.store.ports_hosts import Page

T = TypeVar("T")


class SqlPart:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def connection(self) -> Connection:
        """Everything that was saved is in the database when this is used."""
        return self._connection

    @property
    def beside(self) -> Connection:
        """For what has nothing to do with what may be held back."""
        return self._connection

    def page(
        self, query: Select[Any], key: Column[str], after: str, limit: int, decode: Callable[[RowMapping], T]
    ) -> Page[T]:
        """The rows that follow. If one is broken they are looked at one by one. `query` is a constant."""
        asked = {"after": after, "most": limit}
        ids = [row[0] for row in self.connection.execute(_ids_after(query, key), asked)]
        return self.some(query, key, ids, ids[-1] if len(ids) == limit else "", decode)

    def some(
        self,
        query: Select[Any],
        key: Column[str],
        ids: Sequence[str],
        last: str,
        decode: Callable[[RowMapping], T],
    ) -> Page[T]:
        rows, broken = list[T](), dict[str, str]()
        for start in range(0, len(ids), IDS_A_STATEMENT):
            part = ids[start : start + IDS_A_STATEMENT]
            try:
                among = rows_among(self.connection, query, key, part).mappings()
                found = {row[key.name]: row for row in among}
                rows += [decode(found[row_id]) for row_id in part if row_id in found]
            except BROKEN:
                for row_id in part:
                    self._look_at(query, key, row_id, decode, rows, broken)
        return Page(rows=rows, broken=broken, last=last)

    def _look_at(
        self,
        query: Select[Any],
        key: Column[str],
        row_id: str,
        decode: Callable[[RowMapping], T],
        rows: list[T],
        broken: dict[str, str],
    ) -> None:
        try:
            rows += [decode(row) for row in self.connection.execute(query.where(key == row_id)).mappings()]
        except BROKEN as error:
            broken[row_id] = f"{type(error).__name__}: {error}"


# Passes ask this each second: to put a statement together costs more than to run it.
@cache
def _ids_after(query: Select[Any], key: Column[str]) -> Select[Any]:
    most = bindparam("most", type_=Integer)
    return query.where(key > bindparam("after")).order_by(key).limit(most).with_only_columns(key)
