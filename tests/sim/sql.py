"""What the store takes for SQLAlchemy's engine: the same statements on the same SQLite, for less.

Most of a seed's time went into what SQLAlchemy does around each statement. Here it still puts them together,
but the driver is asked directly; and what was asked before, of a database that has not changed since, is
answered from memory. Contract and integration tests hold the store on the real engine.
"""

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from operator import itemgetter
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import JSON, exc
from sqlalchemy.dialects import sqlite

_DIALECT: Any = sqlite.dialect(paramstyle="qmark")
# For all seeds of a process: by what SQLAlchemy knows a statement by, and by what it made of it.
_COMPILED: dict[Any, Any] = {}
_PLANS: dict[Any, "_Plan"] = {}


class Result:
    """Rows that are all there."""

    def __init__(self, rows: Sequence[Any], rowcount: int = -1) -> None:
        self._rows = rows
        self.rowcount = rowcount
        self._mapped: Result | None = None

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)

    def all(self) -> list[Any]:
        return list(self._rows)

    def fetchall(self) -> list[Any]:
        return list(self._rows)

    def first(self) -> Any:
        return self._rows[0] if self._rows else None

    def fetchone(self) -> Any:
        return self.first()

    def one_or_none(self) -> Any:
        if len(self._rows) > 1:
            raise exc.MultipleResultsFound("several rows where one was asked for")
        return self.first()

    def one(self) -> Any:
        if not self._rows:
            raise exc.NoResultFound("no row where one was asked for")
        return self.one_or_none()

    def mappings(self) -> "Result":
        if self._mapped is None:
            self._mapped = Result([row._mapping for row in self._rows])
        return self._mapped

    def scalars(self) -> "Result":
        return Result([row[0] for row in self._rows])

    def scalar(self) -> Any:
        return self._rows[0][0] if self._rows else None

    def scalar_one(self) -> Any:
        return self.one()[0]

    def scalar_one_or_none(self) -> Any:
        row = self.one_or_none()
        return None if row is None else row[0]


class Mapped(dict[str, Any]):
    """A row by its names. `source` is what it was made of: the names, and the driver's values."""

    source: tuple[tuple[str, ...], tuple[Any, ...]]


@cache
def _row_class(names: tuple[str, ...]) -> type[Any]:
    """Rows whose columns have these names."""

    class Row(tuple[Any, ...]):  # noqa: SLOT001 - no tuple has slots that hold anything
        raw: tuple[Any, ...]

        @property
        def _mapping(self) -> Mapped:
            mapped = Mapped(zip(names, self, strict=True))
            mapped.source = names, self.raw
            return mapped

    for place, name in enumerate(names):
        setattr(Row, name, property(itemgetter(place)))
    return Row


def decoded_once(decode: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """What a row says is the same whenever it is read."""
    known: dict[tuple[Any, ...], Any] = {}

    def decoded(row: Mapped) -> Any:
        found = known.get(row.source)
        if found is None:
            found = known[row.source] = decode(row)
        return found

    return decoded


@lru_cache(maxsize=10_000)
def _from_json(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def _reader(of: Any) -> Callable[[Any], Any] | None:
    return _from_json if isinstance(of, JSON) else of._cached_result_processor(_DIALECT, None)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Plan:
    """What of a statement is the same however often it is asked."""

    compiled: Any
    binds: Mapping[str, Callable[[Any], Any]]
    columns: Sequence[Callable[[Any], Any] | None]
    names: tuple[str, ...]

    @classmethod
    def of(cls, compiled: Any) -> "_Plan":
        assert not compiled.insert_prefetch, "no value is made up by SQLAlchemy"
        assert not compiled.update_prefetch, "as above"
        entries = compiled._result_columns
        return cls(
            compiled=compiled,
            binds=compiled._bind_processors,
            columns=[_reader(entry.type) for entry in entries],
            names=tuple(entry.keyname for entry in entries),
        )

    def question(self, values: Mapping[str, Any]) -> tuple[str, tuple[Any, ...]]:
        """The text for the driver, and its values in order."""
        text, order, binds = self.compiled.string, self.compiled.positiontup, self.binds
        if self.compiled.post_compile_params or self.compiled.literal_execute_params:
            spread = self.compiled._process_parameters_for_postcompile(values)
            text, order, binds = spread.statement, spread.positiontup, {**binds, **spread.processors}
        bound = [binds[name](values[name]) if name in binds else values[name] for name in order]
        return text, tuple(bound)

    def rows(self, found: list[tuple[Any, ...]]) -> list[Any]:
        if not any(self.columns):
            return _rows(self.names, found, found)
        read = [
            [value if of is None else of(value) for of, value in zip(self.columns, row, strict=True)]
            for row in found
        ]
        return _rows(self.names, read, found)


def _rows(
    names: tuple[str, ...], read: Sequence[Sequence[Any]], found: Sequence[tuple[Any, ...]]
) -> list[Any]:
    make, rows = _row_class(names), []
    for values, raw in zip(read, found, strict=True):
        row = make(values)
        row.raw = raw
        rows.append(row)
    return rows


class _Question:
    """One statement, which lacks at most what is given with it each time."""

    def __init__(self, statement: Any, given: Mapping[str, Any]) -> None:
        compiled, extracted, collected, _ = statement._compile_w_cache(
            _DIALECT, compiled_cache=_COMPILED, column_keys=sorted(given)
        )
        if compiled not in _PLANS:
            _PLANS[compiled] = _Plan.of(compiled)
        self.plan = _PLANS[compiled]
        self._lacks = [(name, bind.key) for bind, name in compiled.bind_names.items() if bind.key in given]
        self._values = compiled.construct_params(
            given, extracted_parameters=extracted, escape_names=False, _collected_params=collected
        )
        self._whole = None if self._lacks else self.plan.question(self._values)

    def put(self, given: Mapping[str, Any]) -> tuple[str, tuple[Any, ...]]:
        if self._whole is not None:
            return self._whole
        return self.plan.question(self._values | {name: given[key] for name, key in self._lacks})


class Engine:
    """`begin` and `connect` as SQLAlchemy has them. `told` hears of "begin", "statement" and "commit"."""

    dialect = _DIALECT

    def __init__(self, raw: sqlite3.Connection, told: Callable[[str], None]) -> None:
        self.raw = raw
        self.told = told
        self.questions: WeakKeyDictionary[Any, _Question] = WeakKeyDictionary()
        # Of what was asked since anything changed: how many changes, and how often some were undone.
        self.answers: dict[Any, Result] = {}
        self.answers_of = (0, 0)
        self.undone = 0

    @property
    def version(self) -> tuple[int, int]:
        """Another one whenever anything in the database has changed."""
        return self.raw.total_changes, self.undone

    @contextmanager
    def begin(self) -> Iterator["Connection"]:
        connection = Connection(self)
        try:
            connection.start("BEGIN IMMEDIATE")
            yield connection
            self.told("commit")
            self.raw.execute("COMMIT")
        except BaseException:
            connection.undo()
            raise

    @contextmanager
    def connect(self) -> Iterator["Connection"]:
        connection = Connection(self)
        try:
            yield connection
        finally:
            connection.undo()


class Connection:
    dialect = _DIALECT

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._raw = engine.raw
        self._begun = False
        # What ledger/sqlite.py asks for.
        self.connection = self
        self.driver_connection = engine.raw

    def in_transaction(self) -> bool:
        return self._begun

    def execution_options(self, **_: object) -> "Connection":
        return self

    def start(self, how: str) -> None:
        self._begun, self._changes = True, self._raw.total_changes
        self.engine.told("statement")
        self._raw.execute(how)
        self.engine.told("begin")

    def undo(self) -> None:
        if self._raw.in_transaction:
            self._raw.execute("ROLLBACK")
            # Another database than before, though as many changes were made to it.
            self.engine.undone += self._raw.total_changes != self._changes

    def execute(self, statement: Any, given: Any = None) -> Result:
        if isinstance(given, list):
            return self._each(statement, given)
        question = self.engine.questions.get(statement)
        if question is None:
            question = self.engine.questions[statement] = _Question(statement, given or {})
        return self._ask(*question.put(given), question.plan)

    def scalar(self, statement: Any, given: Any = None) -> Any:
        return self.execute(statement, given).scalar()

    def scalars(self, statement: Any, given: Any = None) -> Result:
        return self.execute(statement, given).scalars()

    def exec_driver_sql(self, text: str, given: Any = ()) -> Result:
        if isinstance(given, list):
            return self._do(self._raw.executemany, text, given)
        return self._ask(text, tuple(given), None)

    def _each(self, statement: Any, given: list[Any]) -> Result:
        question = _Question(statement, given[0])
        texts, values = zip(*[question.put(one) for one in given], strict=True)
        (text,) = set(texts)
        return self._do(self._raw.executemany, text, list(values))

    def _ask(self, text: str, values: tuple[Any, ...], plan: _Plan | None) -> Result:
        if not text.startswith("SELECT"):
            return self._do(self._raw.execute, text, values, plan)
        if not self._begun:
            self.start("BEGIN")
        engine = self.engine
        version = engine.version
        if version != engine.answers_of:
            engine.answers.clear()
            engine.answers_of = version
        key = text, values, plan
        answer = engine.answers.get(key)
        if answer is None:
            answer = engine.answers[key] = self._do(self._raw.execute, text, values, plan)
        else:
            engine.told("statement")
        return answer

    def _do(
        self, how: Callable[..., sqlite3.Cursor], text: str, values: Any, plan: _Plan | None = None
    ) -> Result:
        if not self._begun:
            self.start("BEGIN")
        self.engine.told("statement")
        try:
            cursor = how(text, values)
            found = cursor.fetchall()
        except sqlite3.Error as error:
            raise getattr(exc, type(error).__name__)(text, values, error) from error
        if plan is not None:
            rows = plan.rows(found)
        elif found:
            rows = _rows(tuple([column[0] for column in cursor.description]), found, found)
        else:
            rows = found
        return Result(rows, cursor.rowcount)
