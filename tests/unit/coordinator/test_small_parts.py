"""Tokens, requests that are made once, the bell, and what the gate lets through."""

import asyncio
import re

import grpc
import pytest

from coordinator.api.bell import Bell, wait
from coordinator.api.gate import Gate
from coordinator.api.limits import Allowance, Limits
from coordinator.api.metrics import Metrics
from coordinator.domain.act import Act
from coordinator.domain.bucket import Pace
from coordinator.domain.refusal import Refusal, RefusalCode
from coordinator.services.mint import Mint, digest_of
from coordinator.services.requests import fingerprint, once
from runtime.clock import SystemClock

# Tokens.


def test_the_same_request_mints_the_same_token_and_no_other_does():
    mint = Mint(key=b"k" * 32)
    token = mint.token("usance_tok", "acct_1", "request-1")
    assert token == mint.token("usance_tok", "acct_1", "request-1")
    others = [
        mint.token("usance_tok", "acct_1", "request-2"),
        mint.token("usance_tok", "acct_2", "request-1"),
        mint.token("usance_sec", "acct_1", "request-1"),
        mint.token("usance_tok", "acct_1r", "equest-1"),
        Mint(key=b"l" * 32).token("usance_tok", "acct_1", "request-1"),
    ]
    assert len({token, *others}) == 6


def test_a_token_can_be_found_by_a_scanner_and_carries_192_bits():
    token = Mint(key=b"k" * 32).token("usance_tok", "x")
    assert re.fullmatch(r"usance_tok_[A-Za-z0-9_-]{32}", token)
    assert len(digest_of(token)) == 32


def test_the_key_is_not_shown():
    assert "secret" not in repr(Mint(key=b"secret"))


# Requests.


class Memory:
    """As much of a transaction as `once` needs."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], tuple[bytes, str]] = {}

    def recall(self, account_id, request_id):
        return self.known.get((account_id, request_id))

    def remember(self, account_id, request_id, content, answer):
        assert (account_id, request_id) not in self.known
        self.known[account_id, request_id] = (content, answer)


def test_a_request_is_carried_out_once_and_answers_the_same_for_ever():
    tx, made = Memory(), iter(["first", "second"])
    answers = [once(tx, "a", "r", b"content", lambda: next(made)) for _ in range(3)]  # type: ignore[arg-type]
    assert answers == ["first"] * 3


def test_the_same_id_with_other_content_is_refused_and_changes_nothing():
    tx = Memory()
    once(tx, "a", "r", b"content", lambda: "first")  # type: ignore[arg-type]
    with pytest.raises(Refusal) as caught:
        once(tx, "a", "r", b"other", lambda: pytest.fail("it was carried out"))  # type: ignore[arg-type]
    assert (caught.value.code, caught.value.field) == (RefusalCode.REQUEST_ID_REUSED, "request_id")


def test_ids_of_different_callers_do_not_meet():
    tx = Memory()
    once(tx, "a", "r", b"content", lambda: "first")  # type: ignore[arg-type]
    assert once(tx, "b", "r", b"other", lambda: "second") == "second"  # type: ignore[arg-type]


def test_what_was_refused_may_be_tried_again():
    tx = Memory()

    def refuse() -> str:
        raise Refusal(RefusalCode.INSUFFICIENT_FUNDS, "no")

    with pytest.raises(Refusal):
        once(tx, "a", "r", b"content", refuse)  # type: ignore[arg-type]
    assert once(tx, "a", "r", b"content", lambda: "now") == "now"  # type: ignore[arg-type]


def test_parts_of_a_fingerprint_do_not_run_into_each_other():
    prints = [fingerprint("ab", "c"), fingerprint("a", "bc"), fingerprint("abc"), fingerprint("abc", "")]
    assert len(set(prints)) == 4


# The bell.


def test_whoever_listens_hears_its_topic_and_no_other():
    async def scenario() -> None:
        bell = Bell(asyncio.get_running_loop())
        with bell.listen("queue") as one, bell.listen("queue") as two, bell.listen("job_1") as other:
            await asyncio.to_thread(bell.ring, {"queue": None, "nobody": None})
            await asyncio.wait_for(asyncio.gather(one.wait(), two.wait()), 5)
            assert not other.is_set()
        bell.ring({"queue": None})  # nobody listens any more

    asyncio.run(scenario())


def test_waiting_ends_by_the_bell_or_by_time():
    async def scenario() -> None:
        event = asyncio.Event()
        await wait(event, 1)
        event.set()
        await asyncio.wait_for(wait(event, 3_600_000), 5)

    asyncio.run(scenario())


# The gate.


class Details:
    def __init__(self, method: str) -> None:
        self.method = method
        self.invocation_metadata = ()


def test_an_rpc_that_nobody_was_admitted_to_is_not_there():
    """It was served to everybody."""

    async def answer(request: object, context: object) -> object:
        raise AssertionError("it was served")

    async def continuation(details: object) -> object:
        return grpc.unary_unary_rpc_method_handler(answer)

    async def authenticate(token: str):
        raise AssertionError("nobody was asked for a token")

    async def scenario() -> None:
        opened = asyncio.Event()
        opened.set()

        async def keep(act: Act) -> None:
            raise AssertionError(act)

        async def recognise(host_id: str) -> None:
            raise AssertionError(host_id)

        pace = Pace(per_second=1, burst=1)
        allowance = Allowance(requests=pace, anonymous=pace, failures=pace, streams_max=1, open_jobs_max=1)
        limits = Limits(allowance, SystemClock())
        gate = Gate(
            authenticate,
            recognise,
            keep,
            limits,
            Metrics(),
            SystemClock(),
            opened,
        )
        assert await gate.intercept_service(continuation, Details("/usance.v1.Market/New")) is None  # type: ignore[arg-type]
        known = Details("/usance.v1.MarketService/GetJob")
        assert await gate.intercept_service(continuation, known) is not None  # type: ignore[arg-type]

    asyncio.run(scenario())
