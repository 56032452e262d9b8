"""What one account and one address may ask of us: in memory, for those that come now."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from coordinator.domain.bucket import Bucket, Pace, full, take, wait_ms
from coordinator.domain.refusal import Refusal, RefusalCode
from coordinator.services.mint import digest_of
from runtime.clock import Clock

# Of so many we remember what they did; whoever was not seen for longest is forgotten first.
REMEMBERED_MAX = 20_000
STREAM_RETRY_MS = 1_000
# How often open jobs are counted.
COUNT_MS = 10_000
# How often stored output is: that looks at all of it.
WEIGH_MS = 600_000


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """What the operator has set."""

    # For each account.
    requests: Pace
    # For each address, of requests that come without an account's token: enrolments.
    anonymous: Pace
    # For each address: tokens that are not good.
    failures: Pace
    streams_max: int
    # Jobs of one account that have not ended.
    open_jobs_max: int
    # Of the output of one account's jobs, as it is kept.
    output_bytes_max: int = 1 << 50


class Limits:
    def __init__(
        self, allowance: Allowance, clock: Clock, shown: Callable[[str], None] = lambda _: None
    ) -> None:
        """`shown` is told, in gRPC's words, of each peer that came with a good token or certificate."""
        self.shown = shown
        self._allowance = allowance
        self._clock = clock
        self._requests = _Buckets(allowance.requests)
        self._anonymous = _Buckets(allowance.anonymous)
        self._failures = _Buckets(allowance.failures)
        # Digests of tokens that were good of late: a stranger at the same address does not lock them out.
        self._good: OrderedDict[bytes, None] = OrderedDict()
        self._streams = Counter[str]()
        # As they were counted last, with those that were sent in since.
        self._open_jobs: dict[str, int] = {}
        self._output_bytes: Mapping[str, int] = {}

    def request(self, account_id: str) -> None:
        waits_ms = self._requests.take(account_id, self._clock.boot_ms())
        _must_not_wait(waits_ms, "this account asks for more than it may")

    def anonymous(self, address: str) -> None:
        waits_ms = self._anonymous.take(address, self._clock.boot_ms())
        _must_not_wait(waits_ms, "too much is asked for from your address")

    def try_token(self, address: str, token: str) -> None:
        """Before it is looked up: who guesses is slowed down, and costs us little."""
        if digest_of(token) not in self._good:
            waits_ms = self._failures.wait_ms(address, self._clock.boot_ms())
            _must_not_wait(waits_ms, "too many tokens from your address were not good")

    def was_good(self, token: str) -> None:
        digest = digest_of(token)
        self._good[digest] = None
        self._good.move_to_end(digest)
        if len(self._good) > REMEMBERED_MAX:
            self._good.popitem(last=False)

    def was_bad(self, address: str, token: str) -> None:
        self._good.pop(digest_of(token), None)
        self._failures.take(address, self._clock.boot_ms())

    def counted(self, open_jobs: Mapping[str, int]) -> None:
        """How many there are, by account."""
        self._open_jobs = dict(open_jobs)

    def weighed(self, output_bytes: Mapping[str, int]) -> None:
        """How much of the output of its jobs is kept, by account."""
        self._output_bytes = output_bytes

    def submit(self, account_id: str) -> None:
        """Roughly: what ended, or was refused, since the last count is counted still."""
        most = self._allowance.output_bytes_max
        if self._output_bytes.get(account_id, 0) >= most:
            _must_not_wait(WEIGH_MS, f"this account's jobs have {most >> 20} MiB of output kept")
        count = self._open_jobs.get(account_id, 0)
        if count >= self._allowance.open_jobs_max:
            most = self._allowance.open_jobs_max
            _must_not_wait(COUNT_MS, f"this account has {most} jobs that have not ended")
        self._open_jobs[account_id] = count + 1

    @contextmanager
    def stream(self, account_id: str) -> Iterator[None]:
        if self._streams[account_id] >= self._allowance.streams_max:
            _must_not_wait(STREAM_RETRY_MS, f"this account has {self._allowance.streams_max} streams open")
        self._streams[account_id] += 1
        try:
            yield
        finally:
            self._streams[account_id] -= 1
            if not self._streams[account_id]:
                del self._streams[account_id]


class _Buckets:
    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._of: OrderedDict[str, Bucket] = OrderedDict()

    def take(self, name: str, now_ms: int) -> int:
        bucket, waits_ms = take(self._bucket(name, now_ms), self._pace, now_ms)
        self._of[name] = bucket
        self._of.move_to_end(name)
        if len(self._of) > REMEMBERED_MAX:
            self._of.popitem(last=False)
        return waits_ms

    def wait_ms(self, name: str, now_ms: int) -> int:
        return wait_ms(self._bucket(name, now_ms), self._pace, now_ms)

    def _bucket(self, name: str, now_ms: int) -> Bucket:
        return self._of.get(name) or full(self._pace, now_ms)


def _must_not_wait(waits_ms: int, why: str) -> None:
    if waits_ms:
        seconds = -(-waits_ms // 1_000)
        raise Refusal(RefusalCode.RATE_LIMITED, f"{why}; try again in {seconds} s", retry_ms=waits_ms)
