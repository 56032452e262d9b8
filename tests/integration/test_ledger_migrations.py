"""What the migrations give is what the metadata says, to the letter of every guard."""

import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from coordinator.store import migrate
from ledger import audit, book, seal, tables
from ledger.engine import make_engine
from tests.rig.postgres import Postgres
from tests.support import ledger as make

_SQLITE = (
    "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY type, name"
)
_POSTGRES = {
    "columns": "SELECT table_name, column_name, data_type, is_nullable, column_default, ordinal_position,"
    " collation_name"
    " FROM information_schema.columns WHERE table_schema = 'public'",
    "constraints": "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
    " WHERE connamespace = 'public'::regnamespace",
    "indices": "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    "triggers": "SELECT tgrelid::regclass::text, tgname, pg_get_triggerdef(oid) FROM pg_trigger"
    " WHERE NOT tgisinternal",
    "functions": "SELECT proname, pg_get_functiondef(oid) FROM pg_proc"
    " WHERE pronamespace = 'public'::regnamespace",
    "views": "SELECT viewname, definition FROM pg_views WHERE schemaname = 'public'",
    "settings": "SELECT relname, array_to_string(reloptions, ',') FROM pg_class"
    " WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'",
}


def schema_of(engine: Engine) -> dict[str, set[tuple[object, ...]]]:
    with engine.connect() as conn:
        if conn.dialect.name == "sqlite":
            rows = conn.execute(text(_SQLITE)).all()
            found = {(r.type, r.name, r.tbl_name, " ".join((r.sql or "").split())) for r in rows}
            return {"everything": {(*row[:3], row[3].replace("( ", "(").replace(" )", ")")) for row in found}}
        return {what: {tuple(row) for row in conn.execute(text(query))} for what, query in _POSTGRES.items()}


def of_the_ledger(schema: dict[str, set[tuple[object, ...]]]) -> dict[str, set[tuple[object, ...]]]:
    return {
        what: {row for row in rows if any(str(name).startswith("ledger_") for name in row[:3])}
        for what, rows in schema.items()
    }


def test_migrations_and_metadata_give_the_same_ledger_on_sqlite(tmp_path: Path):
    migrated, created = (make_engine(f"sqlite:///{tmp_path}/{name}.db") for name in ("migrated", "created"))
    migrate.upgrade(migrated)
    tables.create_all(created)
    schema = schema_of(created)
    assert sum(len(rows) for rows in schema.values()) > 25
    assert of_the_ledger(schema_of(migrated)) == of_the_ledger(schema)


@pytest.mark.postgres
def test_migrations_and_metadata_give_the_same_ledger_on_postgresql(postgres_server: Postgres):
    with postgres_server.database() as first, postgres_server.database() as second:
        migrated, created = make_engine(first), make_engine(second)
        migrate.upgrade(migrated)
        tables.create_all(created)
        schema = schema_of(created)
        assert all(schema.values())
        assert of_the_ledger(schema_of(migrated)) == of_the_ledger(schema)
        migrated.dispose()
        created.dispose()


def test_upgrading_again_changes_nothing_and_needs_no_alembic(
    ledger_url: str, monkeypatch: pytest.MonkeyPatch
):
    engine = make_engine(ledger_url)
    assert migrate.current(engine) is None
    migrate.upgrade(engine)
    schema = schema_of(engine)
    monkeypatch.setitem(sys.modules, "alembic", None)  # who imports it fails
    migrate.upgrade(engine)
    assert schema_of(engine) == schema
    assert migrate.current(engine) == migrate.head()
    engine.dispose()


def test_files_are_named_for_the_revisions_that_alembic_finds_in_them():
    scripts = ScriptDirectory(str(Path(migrate.__file__).with_name("migrations")))
    assert scripts.get_heads() == [migrate.head()]
    assert all(migrate.knows(script.revision) for script in scripts.walk_revisions())


@pytest.mark.postgres
def test_a_history_of_before_the_newest_guards_is_as_it_was_and_goes_on(postgres_server: Postgres):
    batches = [
        [make.deposit(1, 1_000), make.hold(2, 500), make.capture(3, 100, 10, 5), make.hold(4, 99_999)],
        [make.capture(number, 1, 1, number) for number in range(10, 30)],
    ]
    with postgres_server.database() as url:
        ledger = make_engine(url)
        with ledger.begin() as conn:
            config = Config()
            config.set_main_option("script_location", str(Path(migrate.__file__).with_name("migrations")))
            config.set_main_option("path_separator", "os")
            config.attributes.update(connection=conn, metadata=migrate.METADATA)
            command.upgrade(config, "0014")
        make.start(ledger)
        answers = [make.post(ledger, *batch) for batch in batches]
        with ledger.begin() as conn:
            kept = tuple(seal.seal(conn, 11))
        migrate.upgrade(ledger)
        assert [[outcome.status for outcome in make.post(ledger, *batch)] for batch in batches] == [
            [outcome.status if not outcome.ok else "exists" for outcome in said] for said in answers
        ]
        more = [make.capture(number, 1, 1, number) for number in range(30, 60)]
        assert all(outcome.ok for outcome in make.post(ledger, *more, make.release(60, 350)))
        again = "UPDATE ledger_account SET closed_ms = closed_ms + 1 WHERE closed_ms IS NOT NULL"
        with pytest.raises(DBAPIError, match="refused"), ledger.begin() as conn:
            conn.execute(text(again))
        with ledger.begin() as conn:
            assert seal.seal(conn, 12)
            assert list(audit.audit(conn, kept=kept)) == []
            assert book.transfer_count(conn) == 3 + 20 + 30 + 1
        ledger.dispose()
