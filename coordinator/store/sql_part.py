"""What the parts of a transaction have in common: what they speak to the database through."""

from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Column, Connection, RowMapping, Select

from coordinator.store.ports import BROKEN, Page

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
        """The rows that follow. If one is broken they are looked at one by one."""
        part = query.where(key > after).order_by(key).limit(limit)
        rows, broken = list[T](), dict[str, str]()
        ids = [row[0] for row in self.connection.execute(part.with_only_columns(key))]
        try:
            found = self.connection.execute(query.where(key.in_(ids)).order_by(key)).mappings()
            rows = [decode(row) for row in found]
        except BROKEN:
            for row_id in ids:
                try:
                    row = self.connection.execute(query.where(key == row_id)).mappings().one()
                    rows.append(decode(row))
                except BROKEN as error:
                    broken[row_id] = f"{type(error).__name__}: {error}"
        return Page(rows=rows, broken=broken, last=ids[-1] if len(ids) == limit else "")
