"""Every invariant of the ledger, each as a small check that yields the violations it finds.

An audit reads only what is stored and shares no code with posting but the chart and the tables of kinds. In
full it starts from the first transfer; incrementally, after `since_seq`, trusting what an earlier audit found
up to there. Sealed history is proof against any alteration for whoever kept a seal's hash.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from sqlalchemy import Connection, func, select, text

from ledger.chart import ASSET, CHART, CodeError, parse_code
from ledger.entries import TRANSFER_BY_NUMBER, TRANSFERS, FeeRule, Status, TransferKind
from ledger.seal import GENESIS, Seal, hash_of
from ledger.tables import ACCOUNT, SEAL, TRANSFER

# An audit of a ledger that is wholly wrong says so, and stops counting.
VIOLATIONS_PER_CHECK_MAX = 100

_CAPTURE, _REFUND = (TRANSFERS[kind].number for kind in (TransferKind.CAPTURE, TransferKind.REFUND))


@dataclass(frozen=True, kw_only=True, slots=True)
class Violation:
    """What is wrong, and with what."""

    check: str
    subject: str
    detail: str

    def __str__(self) -> str:
        return f"{self.check}: {self.subject}: {self.detail}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Scope:
    """Transfers after `since_seq`; the seals that somebody kept, to hold against those stored."""

    since_seq: int = 0
    kept: tuple[Seal, ...] = ()


Found = Iterator[tuple[object, str]]
Check = Callable[[Connection, Scope], Found]


def audit(conn: Connection, *, since_seq: int = 0, kept: tuple[Seal, ...] = ()) -> Iterator[Violation]:
    """Run every check. Give it one consistent view: `ledger.engine.reading`, or a transaction of your own."""
    scope = Scope(since_seq=since_seq, kept=kept)
    if conn.dialect.name == "postgresql":
        # Sorting every leg is the work of an audit: in memory, and not compiled first.
        conn.execute(text("SELECT set_config('work_mem', '64MB', true), set_config('jit', 'off', true)"))
    for name, check in CHECKS.items():
        for number, (subject, detail) in enumerate(check(conn, scope)):
            if number == VIOLATIONS_PER_CHECK_MAX:
                yield Violation(check=name, subject="…", detail="and more")
                break
            yield Violation(check=name, subject=str(subject), detail=detail)


def recent(conn: Connection, since_seq: int) -> Iterator[Violation]:
    """The checks that cost no more than the transfers after `since_seq`: to be run all the time."""
    scope = Scope(since_seq=since_seq)
    for check in (numbering, chains, parties, holds, windows, corrections):
        for subject, detail in check(conn, scope):
            yield Violation(check=check.__name__, subject=str(subject), detail=detail)


def conservation(conn: Connection, _scope: Scope) -> Found:
    """The balances of each asset sum to zero."""
    sums = (
        "SELECT asset, sum(balance_micro) FROM ledger_account GROUP BY asset HAVING sum(balance_micro) <> 0"
    )
    for asset, total in conn.execute(text(sums)):
        yield asset, f"balances sum to {total}"


def numbering(conn: Connection, scope: Scope) -> Found:
    """Transfers are numbered without gaps, in the order of time, and `id`s name one each."""
    query = """
    SELECT seq, before, posted_ms, posted_before FROM (
      SELECT seq, posted_ms, lag(seq) OVER (ORDER BY seq) AS before,
             lag(posted_ms) OVER (ORDER BY seq) AS posted_before
        FROM ledger_transfer WHERE seq >= :since) AS t
     WHERE (before IS NULL AND seq <> :first) OR seq <> before + 1 OR posted_ms < posted_before"""
    bounds = {"since": scope.since_seq, "first": max(scope.since_seq, 1)}
    for row in conn.execute(text(query), bounds):
        yield f"transfer {row.seq}", f"comes after {row.before or 'nothing'}, posted {row.posted_ms}"


def chains(conn: Connection, scope: Scope) -> Found:
    """Each account's legs are numbered without gaps, each balance continues the last and keeps the
    floor, and the account stands where its newest leg left it.
    """
    # One pass for all of it: sorting the legs is what an audit costs.
    query = """
    WITH step AS (
      SELECT account, account_seq, delta, balance,
             lag(account_seq) OVER chain AS seq_before, lag(balance) OVER chain AS balance_before
        FROM ledger_leg WHERE seq > :since
      WINDOW chain AS (PARTITION BY account ORDER BY account_seq)
    ), chain AS (
      SELECT account, min(account_seq) AS first, max(account_seq) AS last, min(balance) AS lowest,
             sum(delta) AS total, max(CASE WHEN seq_before IS NULL THEN balance - delta END) AS opening,
             sum(CASE WHEN account_seq <> seq_before + 1 OR balance <> balance_before + delta
                      THEN 1 ELSE 0 END) AS breaks
        FROM step GROUP BY account)
    SELECT c.account, a.code, c.first, c.opening, c.breaks, c.lowest, a.floor_micro, a.seq, a.balance_micro,
           c.last, c.opening + c.total AS closing
      FROM chain AS c LEFT JOIN ledger_account AS a ON a.id = c.account
     WHERE a.id IS NULL OR c.breaks > 0 OR c.lowest < a.floor_micro OR a.seq <> c.last
        OR a.balance_micro <> c.opening + c.total OR :since > 0 OR c.first <> 1 OR c.opening <> 0"""
    for row in conn.execute(text(query), {"since": scope.since_seq}):
        name = row.code or f"account {row.account}"
        if row.breaks or not _continues(conn, row.account, row.first, row.opening):
            yield name, f"the chain of its legs from {row.first} to {row.last} is broken"
        if row.code is None:
            yield name, "has legs and does not exist"
        elif row.floor_micro is not None and row.lowest < row.floor_micro:
            yield name, f"was at {row.lowest}, below its floor"
        elif (row.seq, row.balance_micro) != (row.last, row.closing):
            stands, should = f"{row.balance_micro} after {row.seq} legs", f"{row.closing} after {row.last}"
            yield name, f"stands at {stands}; its legs say {should}"
    idle = """
    SELECT code FROM ledger_account WHERE (seq = 0 AND balance_micro <> 0) OR seq < 0
    UNION ALL
    SELECT code FROM ledger_account AS a WHERE seq > 0 AND :since = 0
       AND NOT EXISTS (SELECT 1 FROM ledger_transfer WHERE debit = a.id)
       AND NOT EXISTS (SELECT 1 FROM ledger_transfer WHERE credit = a.id)
       AND NOT EXISTS (SELECT 1 FROM ledger_transfer WHERE fee_account = a.id)"""
    for code in conn.scalars(text(idle), {"since": scope.since_seq}):
        yield code, "stands at something and has no legs"


def _continues(conn: Connection, account: int, first: int | None, opening: int | None) -> bool:
    """The first leg of the scope goes on where the account was left before it."""
    if first is None or opening is None:
        return False
    if first == 1:
        return opening == 0
    query = """
    SELECT count(*) FROM ledger_leg
     WHERE account = :account AND account_seq = :before AND balance = :balance"""
    values = {"account": account, "before": first - 1, "balance": opening}
    return bool(conn.scalar(text(query), values) == 1)


def parties(conn: Connection, scope: Scope) -> Found:
    """Each transfer is of a kind, between accounts of the kinds and the one asset that the tables allow."""
    query = """
    SELECT t.kind, d.kind AS debit, c.kind AS credit, f.kind AS fee, min(t.seq) AS seq,
           (t.fee > 0) AS charged, (t.fee < 0) AS returned, (t.corrects IS NOT NULL) AS corrects,
           (d.asset <> c.asset OR coalesce(f.asset, d.asset) <> d.asset) AS assets_differ
      FROM ledger_transfer AS t
      LEFT JOIN ledger_account AS d ON d.id = t.debit LEFT JOIN ledger_account AS c ON c.id = t.credit
      LEFT JOIN ledger_account AS f ON f.id = t.fee_account
     WHERE t.seq > :since GROUP BY 1, 2, 3, 4, 6, 7, 8, 9"""
    numbers = {kind: line.number for kind, line in CHART.items()}
    for row in conn.execute(text(query), {"since": scope.since_seq}):
        subject = f"transfer {row.seq}"
        if row.kind not in TRANSFER_BY_NUMBER:
            yield subject, f"is of no kind: {row.kind}"
            continue
        rule = TRANSFERS[TRANSFER_BY_NUMBER[row.kind]]
        if row.debit not in {numbers[kind] for kind in rule.debit}:
            yield subject, f"debits an account of kind {row.debit}"
        if row.credit not in {numbers[kind] for kind in rule.credit}:
            yield subject, f"credits an account of kind {row.credit}"
        if (row.charged and rule.fee is not FeeRule.CHARGED) or (
            row.returned and rule.fee is not FeeRule.RETURNED
        ):
            yield subject, "carries a fee that its kind does not have"
        if bool(row.corrects) != rule.corrects:
            yield subject, "names what it corrects, or does not, against its kind"
        if row.assets_differ:
            yield subject, "moves between assets"


def accounts(conn: Connection, _scope: Scope) -> Found:
    """Each account is what its code says, by the chart."""
    fits = " OR ".join(
        f"(kind = {line.number} AND code || '@' LIKE '{kind}{':_%' if line.owned else ''}@%'"
        f" AND floor_micro {'IS NULL' if line.floor_micro is None else f'= {line.floor_micro}'})"
        for kind, line in CHART.items()
    )
    # The database picks out those that look wrong, so that not every account has to be parsed here.
    query = f"""
    SELECT code, kind, asset, floor_micro FROM ledger_account
     WHERE NOT (({fits}) AND CASE WHEN asset = '{ASSET}' THEN code NOT LIKE '%@%'
                                  ELSE code LIKE '%@' || asset END)"""  # noqa: S608 - constants of ours
    for row in conn.execute(text(query)):
        try:
            code = parse_code(row.code)
        except CodeError as error:
            yield row.code, str(error)
        else:
            yield str(code), f"is kept as kind {row.kind}, asset {row.asset}, floor {row.floor_micro}"


def closed(conn: Connection, _scope: Scope) -> Found:
    """What is closed is empty, and nothing has touched it since."""
    query = """
    SELECT a.code FROM ledger_account AS a WHERE a.closed_ms IS NOT NULL AND (a.balance_micro <> 0
       OR a.closed_ms < a.opened_ms
       OR EXISTS (SELECT 1 FROM ledger_transfer WHERE debit = a.id AND posted_ms > a.closed_ms)
       OR EXISTS (SELECT 1 FROM ledger_transfer WHERE credit = a.id AND posted_ms > a.closed_ms)
       OR EXISTS (SELECT 1 FROM ledger_transfer WHERE fee_account = a.id AND posted_ms > a.closed_ms))"""
    for code in conn.scalars(text(query)):
        yield code, "is closed and not empty, or was touched after"


def holds(conn: Connection, scope: Scope) -> Found:
    """A hold is of one job, filled by one wallet; what is left returns there, which closes it."""
    strangers = """
    SELECT t.seq, h.code FROM ledger_transfer AS t
      JOIN ledger_account AS h ON h.id = CASE WHEN t.kind = 3 THEN t.credit ELSE t.debit END
     WHERE t.seq > :since AND t.kind IN (3, 4, 5) AND (h.payer IS NULL
       OR (t.kind = 3 AND h.payer <> t.debit) OR (t.kind = 5 AND h.payer <> t.credit)
       OR (h.code <> 'hold:' || t.ref AND substr(h.code, 1, length(t.ref) + 6) <> 'hold:' || t.ref || '@'))"""
    for row in conn.execute(text(strangers), {"since": scope.since_seq}):
        yield row.code, f"transfer {row.seq} is not of its job or not of its payer"
    payers = """
    SELECT a.code FROM ledger_account AS a LEFT JOIN ledger_account AS p ON p.id = a.payer
     WHERE (a.kind = 7) <> (a.payer IS NOT NULL) OR (a.kind = 7 AND (p.kind IS NULL OR p.kind <> 6))"""
    for row in conn.execute(text(payers)):
        yield row.code, "its payer is no wallet, or it is no hold and has one"
    ends = """
    SELECT h.code, t.seq FROM ledger_transfer AS t JOIN ledger_account AS h ON h.id = t.debit
     WHERE t.kind = 5 AND t.debit_balance = 0 AND t.seq > :since
       AND (h.closed_ms IS NULL OR h.closed_ms <> t.posted_ms OR h.seq <> t.debit_seq)"""
    for row in conn.execute(text(ends), {"since": scope.since_seq}):
        yield row.code, f"was emptied by transfer {row.seq} and is not closed since"


def windows(conn: Connection, scope: Scope) -> Found:
    """The captures of a hold are numbered upwards, and the hold knows the last of them."""
    query = """
    SELECT seq, debit FROM (
      SELECT seq, debit, window_no, lag(window_no) OVER (PARTITION BY debit ORDER BY seq) AS before
        FROM ledger_transfer WHERE window_no IS NOT NULL AND seq > :since) AS t WHERE window_no <= before"""
    for row in conn.execute(text(query), {"since": scope.since_seq}):
        yield f"transfer {row.seq}", f"captures a window again from account {row.debit}"
    last = """
    SELECT a.code, a.window_no, t.last FROM ledger_account AS a
      LEFT JOIN (SELECT debit, max(window_no) AS last FROM ledger_transfer WHERE window_no IS NOT NULL
                  AND seq > :since GROUP BY debit) AS t ON t.debit = a.id
     WHERE a.window_no <> coalesce(t.last, 0) AND (t.last IS NOT NULL OR :since = 0)"""
    for row in conn.execute(text(last), {"since": scope.since_seq}):
        yield row.code, f"says window {row.window_no}; its captures say {row.last}"


def corrections(conn: Connection, scope: Scope) -> Found:
    """Corrections name a transfer and never exceed it; refunds are of captures and to their payer."""
    query = f"""
    SELECT c.corrects, sum(c.amount - CASE WHEN c.fee < 0 THEN c.fee ELSE 0 END) AS gross,
           sum(CASE WHEN c.kind = {_REFUND} THEN c.amount ELSE 0 END) AS refunded,
           sum(CASE WHEN c.kind = {_REFUND} THEN -c.fee ELSE 0 END) AS refunded_fee,
           o.seq, o.amount, o.fee
      FROM ledger_transfer AS c LEFT JOIN ledger_transfer AS o ON o.seq = c.corrects
     WHERE c.corrects IN (SELECT corrects FROM ledger_transfer WHERE corrects IS NOT NULL AND seq > :since)
     GROUP BY c.corrects, o.seq, o.amount, o.fee"""  # noqa: S608 - constants of ours
    for row in conn.execute(text(query), {"since": scope.since_seq}):
        if row.seq is None:
            yield f"transfer {row.corrects}", "is corrected and does not exist"
            continue
        gross = row.amount - min(row.fee, 0)
        if row.gross > gross or row.refunded > row.amount - row.fee or row.refunded_fee > max(row.fee, 0):
            yield f"transfer {row.seq}", f"is of {gross} and corrected by {row.gross}"
    strangers = f"""
    SELECT r.seq FROM ledger_transfer AS r JOIN ledger_transfer AS o ON o.seq = r.corrects
      JOIN ledger_account AS h ON h.id = o.debit
     WHERE r.kind = {_REFUND} AND r.seq > :since
       AND (o.kind <> {_CAPTURE} OR r.debit <> o.credit OR r.credit <> h.payer)"""  # noqa: S608
    for row in conn.execute(text(strangers), {"since": scope.since_seq}):
        yield f"transfer {row.seq}", "refunds what is no capture, or to somebody else"


def answers(conn: Connection, _scope: Scope) -> Found:
    """An id was posted or refused, never both, and a refusal has a reason."""
    both = "SELECT t.seq FROM ledger_refusal AS r JOIN ledger_transfer AS t ON t.id = r.id"
    for row in conn.execute(text(both)):
        yield f"transfer {row.seq}", "was refused too"
    newest = "(SELECT coalesce(max(seq), 0) FROM ledger_transfer)"
    query = f"""
    SELECT status, length(digest) AS size, after_seq FROM ledger_refusal
     WHERE after_seq < 0 OR after_seq > {newest} OR length(digest) <> 16
        OR status NOT IN ({", ".join(f"'{status}'" for status in Status)})"""  # noqa: S608 - constants of ours
    for row in conn.execute(text(query)):
        yield f"a refusal after transfer {row.after_seq}", f"is no refusal: {row.status}"


def seals(conn: Connection, scope: Scope) -> Found:
    """Seals follow each other, cover history without a gap, and their hashes are those of what is stored."""
    kept = {seal.no: seal for seal in scope.kept}
    newest = conn.scalar(select(func.max(TRANSFER.c.seq))) or 0
    newest_account = conn.scalar(select(func.max(ACCOUNT.c.id))) or 0
    last = Seal(no=0, first_seq=0, last_seq=0, first_account=0, last_account=0, hash=GENESIS)
    for row in conn.execute(select(SEAL).order_by(SEAL.c.no)).all():
        if (
            row.no != last.no + 1
            or row.first_seq != last.last_seq + 1
            or row.last_seq < row.first_seq
            or row.last_account < last.last_account
        ):
            yield f"seal {row.no}", f"does not follow seal {last.no}, which ends at {last.last_seq}"
        unsealed = Seal(
            no=row.no,
            first_seq=row.first_seq,
            last_seq=row.last_seq,
            first_account=last.last_account + 1,
            last_account=row.last_account,
            hash=last.hash,
        )
        last = replace(unsealed, hash=bytes(row.hash))
        wanted = kept.pop(row.no, None)
        if wanted is not None and wanted.hash != last.hash:
            yield f"seal {row.no}", "is not the one that was kept"
        if row.last_seq > newest or row.last_account > newest_account:
            yield f"seal {row.no}", "covers what does not exist"
        if row.last_seq > scope.since_seq and hash_of(conn, unsealed) != last.hash:
            yield f"seal {row.no}", f"transfers {row.first_seq} to {row.last_seq} are not what was sealed"
    for missing in kept:
        yield f"seal {missing}", "was kept and is no longer there"


CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        conservation, numbering, chains, parties, accounts, closed, holds, windows, corrections, answers,
        seals,
    )
}  # fmt: skip
