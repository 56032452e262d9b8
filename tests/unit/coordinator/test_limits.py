"""Token buckets by a clock that the test moves; what is written down of requests; when tokens were used."""

import pytest

from coordinator.api.acting import address_of, summary
from coordinator.api.limits import REMEMBERED_MAX, Allowance, Limits
from coordinator.api.uses import Uses
from coordinator.domain.bucket import Pace, full, take, wait_ms
from coordinator.domain.refusal import Refusal
from usance.v1 import host_pb2, market_pb2, types_pb2

PACE = Pace(per_second=4, burst=3)


class Clock:
    boot_id = "b"
    now_ms = 1_000

    def boot_ms(self) -> int:
        return self.now_ms

    wall_ms = boot_ms

    async def sleep_ms(self, duration_ms: int) -> None:
        raise AssertionError(duration_ms)


def taken(bucket, times: int, now_ms: int):
    waits = []
    for _ in range(times):
        bucket, waits_ms = take(bucket, PACE, now_ms)
        waits.append(waits_ms)
    return bucket, waits


def test_a_burst_then_the_pace():
    bucket, waits = taken(full(PACE, 0), 4, 0)
    assert waits == [0, 0, 0, 250]
    assert wait_ms(bucket, PACE, 0) == 250
    bucket, waits = taken(bucket, 2, 249)
    assert waits == [1, 1]
    bucket, waits = taken(bucket, 2, 250)
    assert waits == [0, 250]
    _, waits = taken(bucket, 4, 1_000_000)
    assert waits == [0, 0, 0, 250], "a rest fills it, and no more than that"


def test_a_clock_that_goes_back_gives_nothing():
    bucket, _ = taken(full(PACE, 1_000), 3, 1_000)
    assert take(bucket, PACE, 0)[1] == 250


@pytest.mark.parametrize("per_second", [1, 3, 7, 1_000, 1_000_000])
def test_who_waits_as_told_is_served(per_second):
    pace = Pace(per_second=per_second, burst=1)
    bucket, _ = take(full(pace, 0), pace, 0)
    bucket, waits_ms = take(bucket, pace, 0)
    assert waits_ms >= 1
    assert take(bucket, pace, waits_ms)[1] == 0


def test_limits_forget_whoever_was_not_seen_for_longest():
    once = Pace(per_second=1, burst=1)
    limits = Limits(
        Allowance(requests=once, anonymous=once, failures=once, streams_max=1, open_jobs_max=1), Clock()
    )
    limits.request("first")
    with pytest.raises(Refusal, match="try again in 1 s"):
        limits.request("first")
    for number in range(REMEMBERED_MAX):
        limits.request(str(number))
    limits.request("first")


def test_open_jobs_are_counted_now_and_then_and_what_came_since():
    pace = Pace(per_second=1, burst=1)
    limits = Limits(
        Allowance(requests=pace, anonymous=pace, failures=pace, streams_max=1, open_jobs_max=3), Clock()
    )
    limits.counted({"a": 2})
    limits.submit("a")
    with pytest.raises(Refusal, match="3 jobs that have not ended; try again in 10 s"):
        limits.submit("a")
    limits.submit("b")
    limits.counted({"a": 2})
    limits.submit("a")


def test_a_token_is_noted_once_a_minute():
    uses = Uses()
    uses.used(b"a", 100_000)
    uses.used(b"a", 100_001)
    assert uses.take() == {b"a": 100_001}
    uses.used(b"a", 160_000)
    assert uses.take() == {}
    uses.used(b"a", 160_001)
    assert uses.take() == {b"a": 160_001}


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:192.0.2.1:4711", "192.0.2.1"),
        ("ipv6:%5B2001:db8::1%5D:99", "[2001:db8::1]"),
        ("unix:/run/a", "/run/a"),
        ("ipv4:%1B[31m:1", "?[31m"),
        ("", ""),
    ],
)
def test_an_address_is_told_without_its_port(peer, address):
    assert address_of(peer) == address


def test_a_request_is_told_without_what_is_secret():
    asked = host_pb2.EnrollRequest(token_secret="usance_sec_x", csr_pem=b"pem", renews=True)
    assert summary(asked) == "renews=True"
    spec = types_pb2.JobSpec(name="a", image="b", budget_micro=3, env={"PASSWORD": "x"}, command=["--key=y"])
    assert summary(market_pb2.SubmitJobRequest(spec=spec)) == "spec.name=a spec.image=b spec.budget_micro=3"
    deposit = market_pb2.DepositRequest(account_name="a\x1b[2J", reason="r" * 2_000)
    assert summary(deposit).startswith("account_name=a?[2J reason=rrr")
    assert len(summary(deposit)) == 512
    token = market_pb2.CreateTokenRequest(account_name="a", scopes=["jobs:read", "x"])
    assert summary(token) == "account_name=a scopes=['jobs:read', 'x']"
