"""What the database refuses for the market's tables: to change or delete what was written once.

What has gone into the archive may be deleted: rows of a job of which `archived` says so, a table that is
itself append-only. So whoever deletes leaves a line that says what, when, and the digest of what it was.
"""

# ruff: noqa: S608 - every word of these statements is written below

APPEND_ONLY = (
    "act", "archived", "bill_line", "credit", "event", "host_certificate", "log_chunk", "request",
    "restoration", "strike",
)  # fmt: skip
# By table: what must have left the database with its job for a row to be deleted.
_ARCHIVED = {"bill_line": "records", "event": "records", "log_chunk": "output"}


def _message(table: str) -> str:
    return f"market: {table} is append-only"


def _has_left(table: str) -> str:
    """A condition on the row OLD."""
    if table == "event":
        found = "archived WHERE archived.job_id = OLD.job_id"
    else:
        found = "archived JOIN attempt ON attempt.job_id = archived.job_id WHERE attempt.id = OLD.attempt_id"
    return f"EXISTS (SELECT 1 FROM {found} AND archived.part = '{_ARCHIVED[table]}')"


def _sqlite(table: str, verb: str) -> str:
    when = f" WHEN NOT {_has_left(table)}" if verb == "DELETE" and table in _ARCHIVED else ""
    return (
        f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table}{when}"
        f" BEGIN SELECT RAISE(ABORT, '{_message(table)}'); END"
    )


def _postgres(table: str) -> list[str]:
    verbs = "UPDATE OR TRUNCATE" if table in _ARCHIVED else "UPDATE OR DELETE OR TRUNCATE"
    statements = [
        f"CREATE TRIGGER {table}_append_only BEFORE {verbs} ON {table}"
        " FOR EACH STATEMENT EXECUTE FUNCTION market_append_only()"
    ]
    if table in _ARCHIVED:
        statements += [
            f"CREATE FUNCTION {table}_has_left() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN IF {_has_left(table)} THEN RETURN OLD; END IF;"
            f" RAISE EXCEPTION '{_message(table)}'; END $$",
            f"CREATE TRIGGER {table}_only_archived BEFORE DELETE ON {table}"
            f" FOR EACH ROW EXECUTE FUNCTION {table}_has_left()",
        ]
    return statements


SQLITE = [_sqlite(table, verb) for table in APPEND_ONLY for verb in ("UPDATE", "DELETE")]

POSTGRES = [
    "CREATE FUNCTION market_append_only() RETURNS trigger LANGUAGE plpgsql AS"
    " $$ BEGIN RAISE EXCEPTION 'market: % is append-only', TG_TABLE_NAME; END $$",
    *(statement for table in APPEND_ONLY for statement in _postgres(table)),
]
EVENT_COUNTER = "event"
# The number of the oldest migration whose programs can work on this schema: see docs/upgrading.md.
OLDEST_PROGRAM = "oldest_program"
COUNTERS = [
    f"INSERT INTO counter (name, value) VALUES ('{EVENT_COUNTER}', 0)",
    f"INSERT INTO counter (name, value) VALUES ('{OLDEST_PROGRAM}', 14)",
]
