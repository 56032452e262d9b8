"""The market's tables. Constraints hold the promises: what they refuse can't happen, whoever asks.

The ledger's own tables stand beside these in the same database (`ledger.tables`), so that a job and its
money are one commit.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Connection,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy import event as event_api

from coordinator.domain.claim import Strike
from coordinator.domain.event import EventKind
from coordinator.domain.host import Hold, HostState
from coordinator.domain.states import ATTEMPT_LIVE, JOB_TERMINAL, AttemptState, Cause, EndReason, JobState
from coordinator.store.tables_base import id_column, metadata, one_of
from coordinator.store.tables_keeping import archived, restoration
from coordinator.store.tables_people import account_password
from coordinator.store.tables_trust import account, account_role, api_token, enrolment_token, host_certificate
from coordinator.store.triggers import COUNTERS, OLDEST_PROGRAM, POSTGRES, SQLITE

# What stands in files of its own.
__all__ = [
    "OLDEST_PROGRAM",
    "account",
    "account_password",
    "account_role",
    "api_token",
    "archived",
    "enrolment_token",
    "host_certificate",
    "metadata",
    "one_of",
    "restoration",
]

# Where rows change all the time: half of each page is for their new versions, which then need no new entry in
# any index.
_CHANGES_OFTEN = {"fillfactor": 50}

# A host is heard, not heard for a while, or given up.
LINK_STATES = (HostState.ONLINE, HostState.SUSPECT, HostState.LOST)


# The most that a buyer wants to spend on the jobs of one calendar month.
spending_cap = Table(
    "spending_cap",
    metadata,
    Column("account_id", ForeignKey("account.id"), primary_key=True),
    Column("month_micro", BigInteger, CheckConstraint("month_micro > 0", name="month"), nullable=False),
    Column(
        "alert_percent",
        Integer,
        CheckConstraint("alert_percent BETWEEN 1 AND 100", name="alert"),
        nullable=False,
    ),
)

# What a request_id answered, so that it answers the same for ever.
request = Table(
    "request",
    metadata,
    Column("account_id", String(64), primary_key=True),
    Column("request_id", String(36), primary_key=True),
    Column("fingerprint", LargeBinary(32), nullable=False),
    Column("answer", String(128), nullable=False),
)

host = Table(
    "host",
    metadata,
    id_column(),
    Column("account_id", ForeignKey("account.id"), nullable=False, index=True),
    Column("state", String(16), CheckConstraint(one_of("state", LINK_STATES), name="state"), nullable=False),
    Column("reason", Text, nullable=False),
    Column("since_ms", BigInteger, nullable=False),
    Column("facts", JSON, nullable=False),
    Column("terms", JSON, nullable=False),
    # Who holds it back from new jobs, why and since when; `state` says only whether it is heard.
    Column("hold", String(16), CheckConstraint(one_of("hold", Hold), name="hold"), nullable=False),
    Column("hold_reason", Text, nullable=False),
    Column("hold_since_ms", BigInteger, nullable=False),
    Column(
        "reliability_ppm",
        Integer,
        CheckConstraint("reliability_ppm BETWEEN 0 AND 1000000", name="reliability"),
        nullable=False,
    ),
    Column("seen_boot_id", String(64), nullable=False),
    Column("seen_boot_ms", BigInteger, nullable=False),
    Column("seen_wall_ms", BigInteger, nullable=False),
    # Only under a quarantine: what its seller had wished before, and since when.
    Column(
        "hold_under",
        String(16),
        CheckConstraint(one_of("hold_under", set(Hold) - {Hold.QUARANTINED}), name="hold_under"),
    ),
    Column("hold_under_since_ms", BigInteger),
    # Since when it is refused for ever. Whoever sets it here by hand is heeded within a minute.
    Column("revoked_ms", BigInteger),
    postgresql_with=_CHANGES_OFTEN,
)

JOB_IS_LIVE = one_of("state", set(JobState) - JOB_TERMINAL)

job = Table(
    "job",
    metadata,
    id_column(),
    Column("account_id", ForeignKey("account.id"), nullable=False),
    Column("state", String(16), CheckConstraint(one_of("state", JobState), name="state"), nullable=False),
    Column("cause", String(16), CheckConstraint(one_of("cause", Cause), name="cause")),
    Column("detail", Text, nullable=False),
    Column("spec", JSON, nullable=False),
    Column("submitted_ms", BigInteger, nullable=False),
    Column("queued_ms", BigInteger, nullable=False),
    Column("ended_ms", BigInteger),
    Column("charged_micro", BigInteger, nullable=False),
    Column("budget_micro", BigInteger, nullable=False),
    Column("retries_used", Integer, nullable=False),
    Column("exit_code", Integer),
    # Which request it came from; absent of those of before.
    Column("request_id", String(64)),
    Column("traceparent", String(64)),
    CheckConstraint(f"({one_of('state', JOB_TERMINAL)}) = (ended_ms IS NOT NULL)", name="ended"),
    CheckConstraint("charged_micro BETWEEN 0 AND budget_micro", name="budget"),
    postgresql_with=_CHANGES_OFTEN,
)
Index("job_account_id_ix", job.c.account_id, job.c.id)
Index(
    "job_live_ix", job.c.state, job.c.id, postgresql_where=text(JOB_IS_LIVE), sqlite_where=text(JOB_IS_LIVE)
)

_ATTEMPT_LIVE = one_of("state", ATTEMPT_LIVE)

attempt = Table(
    "attempt",
    metadata,
    id_column(),
    Column("job_id", ForeignKey("job.id"), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("host_id", ForeignKey("host.id"), nullable=False),
    Column("seller_account_id", ForeignKey("account.id"), nullable=False),
    Column("isolation", Integer, nullable=False),
    Column("gpus", JSON, nullable=False),
    Column("state", String(16), CheckConstraint(one_of("state", AttemptState), name="state"), nullable=False),
    Column("hour_price_micro", BigInteger, nullable=False),
    Column("fee_ppm", Integer, nullable=False),
    Column("run_ms_affordable", BigInteger, nullable=False),
    Column("run_ms_max", BigInteger, nullable=False),
    Column("paid_through_ms", BigInteger, nullable=False),
    Column("warned", Boolean, nullable=False),
    Column("stop_reason", String(32), CheckConstraint(one_of("stop_reason", EndReason), name="stop_reason")),
    Column("end_reason", String(32), CheckConstraint(one_of("end_reason", EndReason), name="end_reason")),
    Column("cause", String(16), CheckConstraint(one_of("cause", Cause), name="cause")),
    Column("exit_code", Integer),
    Column("detail", Text, nullable=False),
    # Metering: see domain/metering.py.
    Column("assigned", JSON, nullable=False),
    Column("container_id", String(128), nullable=False),
    Column("host_boot_id", String(64), nullable=False),
    Column("sighted", JSON(none_as_null=True)),
    Column("stop_asked", JSON(none_as_null=True)),
    Column("witnessed_ms", BigInteger, nullable=False),
    Column("run_ms_reported", BigInteger, nullable=False),
    Column("usage_number", BigInteger, nullable=False),
    Column("usage_end_ms", BigInteger, nullable=False),
    Column("usage_digest", LargeBinary(32), nullable=False),
    Column("billed_ms", BigInteger, nullable=False),
    # What the host said of the end; the attempt ends when all its usage is in.
    Column("reported_end", JSON(none_as_null=True)),
    Column("lie", Text, nullable=False),
    # Output received, whether it is all of it, and what the host said that it was in all.
    Column("log_offset", BigInteger, nullable=False),
    Column("log_totals", JSON(none_as_null=True)),
    Column("log_state", String(16), nullable=False),
    UniqueConstraint("job_id", "epoch"),
    CheckConstraint("(state = 'ended') = (end_reason IS NOT NULL)", name="ended"),
    CheckConstraint("(end_reason IS NULL) = (cause IS NULL)", name="cause_known"),
    CheckConstraint("log_state IN ('open', 'complete', 'incomplete')", name="log_state"),
    CheckConstraint("billed_ms <= run_ms_affordable AND billed_ms <= witnessed_ms", name="billed"),
    postgresql_with=_CHANGES_OFTEN,
)
Index(
    "attempt_one_live_per_job_uq",
    attempt.c.job_id,
    unique=True,
    postgresql_where=text(_ATTEMPT_LIVE),
    sqlite_where=text(_ATTEMPT_LIVE),
)
# For those who must name an attempt together with its host.
Index("attempt_id_host_uq", attempt.c.id, attempt.c.host_id, unique=True)
# Time-ordered within a seller: ids begin with their time.
Index("attempt_seller_ix", attempt.c.seller_account_id, attempt.c.id)
# What a host must still be told of: see `services/desired.py`.
UNRELEASED = "state <> 'ended' OR log_state = 'open'"
Index(
    "attempt_host_ix",
    attempt.c.host_id,
    postgresql_where=text(UNRELEASED),
    sqlite_where=text(UNRELEASED),
)

# Which host a GPU belongs to: the first that named it, until it is given to another (`services/gpus.py`).
gpu_owner = Table(
    "gpu_owner",
    metadata,
    Column("gpu_uuid", String(128), primary_key=True),
    Column("host_id", ForeignKey("host.id"), nullable=False, index=True),
    # Since when the host does not name it any more.
    Column("absent_ms", BigInteger),
)
Index("gpu_owner_host_uq", gpu_owner.c.gpu_uuid, gpu_owner.c.host_id, unique=True)

# Hosts that name a GPU of another host's; it is not sold from them.
gpu_claim = Table(
    "gpu_claim",
    metadata,
    Column("gpu_uuid", ForeignKey("gpu_owner.gpu_uuid"), primary_key=True),
    Column("host_id", ForeignKey("host.id"), primary_key=True, index=True),
    Column("first_ms", BigInteger, nullable=False),
)

# Which GPU an attempt has; the row goes when the attempt ends. Its key is the promise that a GPU is never
# sold twice at the same time; its references, that only the host sells it to which it belongs, and that it
# belongs to no other while it is sold.
attempt_gpu = Table(
    "attempt_gpu",
    metadata,
    Column("gpu_uuid", String(128), primary_key=True),
    Column("attempt_id", String(64), nullable=False, index=True),
    Column("host_id", String(64), nullable=False),
    ForeignKeyConstraint(["gpu_uuid", "host_id"], ["gpu_owner.gpu_uuid", "gpu_owner.host_id"]),
    ForeignKeyConstraint(["attempt_id", "host_id"], ["attempt.id", "attempt.host_id"]),
)

# What hosts claimed that can't be, each once for each thing that it is about.
strike = Table(
    "strike",
    metadata,
    Column("host_id", ForeignKey("host.id"), primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", String(32), CheckConstraint(one_of("kind", Strike), name="kind"), nullable=False),
    Column("subject", String(128), nullable=False),
    Column("detail", Text, nullable=False),
    Column("happened_ms", BigInteger, nullable=False),
    # Of an attempt that is not known here: how long it had run.
    Column("run_ms", BigInteger),
    UniqueConstraint("host_id", "kind", "subject"),
)

bill_line = Table(
    "bill_line",
    metadata,
    Column("attempt_id", ForeignKey("attempt.id"), primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("start_ms", BigInteger, nullable=False),
    Column("end_ms", BigInteger, nullable=False),
    Column("gpus", JSON, nullable=False),
    Column("previous_digest", LargeBinary(32), nullable=False),
    Column("digest", LargeBinary(32), nullable=False),
    Column("witnessed_ms", BigInteger, nullable=False),
    Column("billed_through_ms", BigInteger, nullable=False),
    Column("charge_micro", BigInteger, nullable=False),
    Column("fee_micro", BigInteger, nullable=False),
    Column("earning_micro", BigInteger, nullable=False),
    Column("transfer_id", String(36), nullable=False),
    CheckConstraint("fee_micro + earning_micro = charge_micro", name="split"),
    CheckConstraint("(charge_micro = 0) = (transfer_id = '')", name="transfer"),
    CheckConstraint("billed_through_ms <= end_ms AND billed_through_ms <= witnessed_ms", name="witnessed"),
)

# What went back to the buyer of a bill line, because the host was at fault.
credit = Table(
    "credit",
    metadata,
    Column("attempt_id", String(64), primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("earning_micro", BigInteger, nullable=False),
    Column("fee_micro", BigInteger, nullable=False),
    Column("transfer_id", String(36), nullable=False),
    Column("reason", Text, nullable=False),
    ForeignKeyConstraint(["attempt_id", "number"], ["bill_line.attempt_id", "bill_line.number"]),
    CheckConstraint("earning_micro >= 0 AND fee_micro >= 0 AND earning_micro + fee_micro > 0", name="amount"),
)

log_chunk = Table(
    "log_chunk",
    metadata,
    Column("attempt_id", ForeignKey("attempt.id"), primary_key=True),
    Column("offset_bytes", BigInteger, primary_key=True),
    Column("stream", Integer, CheckConstraint("stream IN (1, 2)", name="stream"), nullable=False),
    Column("data", LargeBinary, nullable=False),
    # Absent of what came in before this was noted.
    Column("stored_ms", BigInteger),
)

# Gapless: the numbers are taken from the counter inside the writing transaction.
event = Table(
    "event",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    # What it tells of: one of the three.
    Column("job_id", ForeignKey("job.id")),
    Column("host_id", ForeignKey("host.id")),
    Column("account_id", ForeignKey("account.id")),
    Column("attempt_id", String(64), nullable=False),
    Column("kind", String(32), CheckConstraint(one_of("kind", EventKind), name="kind"), nullable=False),
    Column("happened_ms", BigInteger, nullable=False),
    Column("text", Text, nullable=False),
    Column("job_state", String(16), CheckConstraint(one_of("job_state", JobState), name="job_state")),
    Column("cause", String(16), CheckConstraint(one_of("cause", Cause), name="cause")),
    Column("bill_line_number", BigInteger),
    # Where it tells of several lines: the first. It has the last of as many numbers.
    Column("bill_line_first", BigInteger),
    CheckConstraint(
        "CASE WHEN job_id IS NULL THEN 0 ELSE 1 END + CASE WHEN host_id IS NULL THEN 0 ELSE 1 END"
        " + CASE WHEN account_id IS NULL THEN 0 ELSE 1 END = 1",
        name="subject",
    ),
    CheckConstraint("(job_id IS NULL) = (job_state IS NULL)", name="state_of_job"),
)
Index("event_job_ix", event.c.job_id, event.c.number)
# Nearly every event is of a job: the others' indexes need not know of it.
_OF_HOST, _OF_ACCOUNT = text("host_id IS NOT NULL"), text("account_id IS NOT NULL")
Index("event_host_ix", event.c.host_id, event.c.number, postgresql_where=_OF_HOST, sqlite_where=_OF_HOST)
Index(
    "event_account_ix",
    event.c.account_id,
    event.c.number,
    postgresql_where=_OF_ACCOUNT,
    sqlite_where=_OF_ACCOUNT,
)

counter = Table(
    "counter",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", BigInteger, nullable=False),
)


@event_api.listens_for(metadata, "after_create")
def _guard(target: MetaData, connection: Connection, **_: object) -> None:  # noqa: ARG001 - the event's shape
    triggers = SQLITE if connection.dialect.name == "sqlite" else POSTGRES
    for statement in (*triggers, *COUNTERS):
        connection.exec_driver_sql(statement.replace("%", "%%") if triggers is POSTGRES else statement)
