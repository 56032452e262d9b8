"""What the services may ask of the store: verbs of the domain, inside one transaction.

Everything that a transaction does is committed together or not at all, the ledger's part included. A
`save_…` is guarded by the state that was read: False says that somebody else was faster, and is an answer.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Protocol

from coordinator.domain.account import ALL_SCOPES, Account, Balances, Bearer, Scope
from coordinator.domain.credit import Credit
from coordinator.domain.event import Event, NewEvent
from coordinator.domain.host import HostState
from coordinator.domain.job import Attempt, Job, LogChunk
from coordinator.domain.metering import Line
from coordinator.domain.states import JobState
from coordinator.store.ports_books import Books, Tokens
from coordinator.store.ports_hosts import Claims, Hosts, Page
from coordinator.store.ports_keeping import Keeping
from coordinator.store.ports_people import People
from coordinator.store.ports_sealed import SealedParts
from ledger.entries import Outcome, Transfer

NUMBER_MAX = 2**63 - 1
# What a row raises that nothing can be made of.
BROKEN = (ValueError, TypeError, LookupError, AttributeError, AssertionError)


@dataclass(frozen=True, kw_only=True)
class News:
    """What a transaction changed, each as it was (None: it is new) and as it is."""

    jobs: Sequence[tuple[Job | None, Job]]
    attempts: Sequence[tuple[Attempt | None, Attempt]]
    # Whose facts, terms or state are others now.
    hosts: Set[str]
    reliability_ppm: Mapping[str, int]
    transfers: Sequence[Transfer] = ()
    links: Sequence[HostState] = ()


@dataclass(frozen=True, kw_only=True)
class Held:
    """What a host should hold since a commit: all of it, or only what came on top of what it held before."""

    attempts: Sequence[tuple[Attempt, Job]]
    whole: bool


# Who is to look again, by topic; and for some hosts, what they would find.
Rings = Mapping[str, Held | None]


class Accounts(Protocol):
    def insert_account(self, account: Account, now_ms: int) -> bool:
        """False: the name is taken."""
        ...

    def account(self, account_id: str) -> Account | None: ...

    def account_named(self, name: str) -> Account | None: ...

    def accounts_after(self, name: str, limit: int) -> Sequence[Account]: ...

    def insert_token(
        self,
        digest: bytes,
        account_id: str,
        now_ms: int,
        expires_ms: int,
        label: str = "",
        scopes: frozenset[Scope] = ALL_SCOPES,
    ) -> None: ...

    def bearer(self, digest: bytes, now_ms: int) -> Bearer | None:
        """Who may come with this token, if it is good now."""
        ...

    def recall(self, account_id: str, request_id: str) -> tuple[bytes, str] | None:
        """The content's fingerprint and the answer of a request made before."""
        ...

    def remember(self, account_id: str, request_id: str, fingerprint: bytes, answer: str) -> None: ...

    def recall_all(self, asked: Sequence[tuple[str, str]]) -> Mapping[tuple[str, str], tuple[bytes, str]]:
        """By account and request id, of those that were made before."""
        ...

    def remember_all(self, answers: Sequence[tuple[str, str, bytes, str]]) -> None:
        """Account, request id, fingerprint, answer."""
        ...


class Jobs(Protocol):
    def insert_job(self, job: Job) -> None: ...

    def insert_jobs(self, new: Sequence[Job]) -> None: ...

    def job(self, job_id: str) -> Job | None: ...

    def jobs(self, job_ids: Sequence[str]) -> dict[str, Job]: ...

    def jobs_of(self, account_id: str, *, live_only: bool, before_id: str, limit: int) -> Sequence[Job]:
        """Newest first."""
        ...

    def queue(self, limit: int) -> Sequence[Job]:
        """QUEUED jobs, oldest first."""
        ...

    def queue_after(self, job_id: str, limit: int) -> Page[Job]:
        """QUEUED jobs."""
        ...

    def save_job(self, before: Job, after: Job) -> bool: ...

    def save_jobs(self, pairs: Sequence[tuple[Job, Job]]) -> bool:
        """`save_job` for each pair. False: one was not as it was read, so nothing of this may be kept."""
        ...

    def add_charges(self, amounts: Mapping[str, int]) -> dict[str, JobState]:
        """More was charged of these jobs; the state of each. Nothing: one of them is no longer live."""
        ...

    def insert_attempt(self, attempt: Attempt) -> bool:
        """False: one of its GPUs is in use."""
        ...

    def insert_attempts(self, new: Sequence[Attempt]) -> Sequence[str]:
        """Of which a GPU is in use: these are left out."""
        ...

    def attempt(self, attempt_id: str) -> Attempt | None: ...

    def attempts(self, attempt_ids: Sequence[str]) -> dict[str, Attempt]: ...

    def attempts_of_jobs(self, job_ids: Sequence[str]) -> dict[str, list[Attempt]]:
        """In the order in which they were made."""
        ...

    def attempts_on_host(self, host_id: str) -> Sequence[Attempt]:
        """Those which the host must still be told of."""
        ...

    def held_by_buyers(self) -> dict[str, int]:
        """How many GPUs each buyer's live attempts have."""
        ...

    def attempts_on_hosts(self, host_ids: Sequence[str]) -> dict[str, list[Attempt]]:
        """The same for many hosts; one that holds nothing is left out."""
        ...

    def save_meters(self, pairs: Sequence[tuple[Attempt, Attempt]]) -> bool:
        """Like `save_attempt` for each pair, where nothing changed but metering."""
        ...

    def live_attempts(self, after_id: str, limit: int) -> Sequence[Attempt]:
        """By id, from one on."""
        ...

    def attempts_of_lost_hosts(self) -> Sequence[Attempt]:
        """Those that live on although their host was given up."""
        ...

    def attempts_awaited(self, attempt_id: str, limit: int) -> Page[Attempt]:
        """Of which their host owes something: to say that it knows them, that they stopped, the last of their
        usage, or of their output."""
        ...

    def save_attempt(self, before: Attempt, after: Attempt) -> bool: ...

    def insert_lines(self, attempt_id: str, lines: Sequence[tuple[Line, str]]) -> None:
        """Bill lines, each with its transfer's id ("" where nothing was charged)."""
        ...

    def insert_all_lines(self, lines: Sequence[tuple[str, Line, str]]) -> None:
        """The same for many attempts, each line with its attempt's id."""
        ...

    def lines_of(
        self, attempt_ids: Sequence[str], number_min: int = 0, number_max: int = NUMBER_MAX
    ) -> dict[str, list[tuple[Line, str]]]: ...

    def insert_credit(self, attempt_id: str, credit: Credit, transfer_id: str, reason: str) -> None: ...

    def lines_after(
        self, job_id: str, epoch: int, number: int, limit: int
    ) -> Sequence[tuple[str, Line, str]]:
        """A job's lines after that one, attempt by attempt: each with its attempt's id and its transfer's."""
        ...

    def credits_of(self, attempt_ids: Sequence[str]) -> dict[str, list[tuple[Credit, str, str]]]:
        """What was given back: each with its transfer's id and its reason."""
        ...

    def append_log(self, attempt_id: str, chunks: Sequence[LogChunk], now_ms: int) -> None: ...

    def log_offset_since(self, attempt_id: str, since_ms: int) -> int | None:
        """Where the output begins that came in since then; None where none did."""
        ...

    def log_after(self, attempt_id: str, offset: int, limit: int) -> Sequence[LogChunk]:
        """Chunks from the one that holds `offset` on."""
        ...

    def append_events(self, events: Iterable[NewEvent], now_ms: int) -> None: ...

    def events_after(self, job_id: str, number: int, limit: int) -> Sequence[Event]: ...


class Money(Protocol):
    def balances(self, account_ids: Sequence[str]) -> dict[str, Balances]: ...

    def post(self, transfers: Sequence[Transfer], now_ms: int) -> Sequence[Outcome]: ...

    def post_surely(self, transfers: Sequence[Transfer], now_ms: int) -> None:
        """Perhaps later in the transaction: if one were refused, nothing of it would be committed."""
        ...

    def wallets(self, account_ids: Sequence[str]) -> Mapping[str, int]:
        """What can be spent now."""
        ...

    def open_accounts(self, codes: Sequence[str], now_ms: int) -> None: ...

    def trial_balance(self) -> Sequence[tuple[str, int]]: ...

    def seal(self, now_ms: int) -> tuple[int, bytes] | None:
        """Seal what was posted since the last seal: the last transfer covered, and the hash to be kept."""
        ...

    def audit(self) -> tuple[list[str], int]:
        """Violations found, and how many transfers were looked at."""
        ...


class Checks(Protocol):
    def market_violations(self) -> list[str]:
        """A sentence for each promise of the market that what is stored breaks."""
        ...

    def sample_violations(self, after_job_id: str, limit: int) -> tuple[list[str], Sequence[str]]:
        """The same of the newest jobs, of as many from one on, and of the ledger's newest transfers; which
        were looked at, those from that one on last."""
        ...

    def unreleased(self, after_job_id: str, limit: int) -> tuple[Sequence[tuple[Job, int]], str]:
        """Of so many ended jobs from one on, those that hold money still, and how much; the last of all."""
        ...


class Transaction(
    Accounts, Tokens, People, Hosts, Claims, Jobs, SealedParts, Money, Books, Checks, Keeping, Protocol
):
    """Jobs, hosts, usage and the ledger, together."""

    def wake(self, *topics: str) -> None:
        """After the commit, tell whoever waits for one of these topics."""
        ...


class Writing(Transaction, Protocol):
    """One that writes."""

    def news(self) -> News:
        """What it has changed so far."""
        ...
