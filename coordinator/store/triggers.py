"""What the database refuses for the market's tables: to change or delete what was written once."""

# ruff: noqa: S608 - every word of these statements is written below

APPEND_ONLY = ("act", "bill_line", "credit", "event", "host_certificate", "log_chunk", "request", "strike")


def _message(table: str) -> str:
    return f"market: {table} is append-only"


SQLITE = [
    f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table}"
    f" BEGIN SELECT RAISE(ABORT, '{_message(table)}'); END"
    for table in APPEND_ONLY
    for verb in ("UPDATE", "DELETE")
]

POSTGRES = [
    "CREATE FUNCTION market_append_only() RETURNS trigger LANGUAGE plpgsql AS"
    " $$ BEGIN RAISE EXCEPTION 'market: % is append-only', TG_TABLE_NAME; END $$",
    *(
        f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}"
        " FOR EACH STATEMENT EXECUTE FUNCTION market_append_only()"
        for table in APPEND_ONLY
    ),
]
EVENT_COUNTER = "event"
COUNTERS = [f"INSERT INTO counter (name, value) VALUES ('{EVENT_COUNTER}', 0)"]
