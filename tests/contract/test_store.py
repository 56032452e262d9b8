"""Every verb of the market's store, on SQLite and on PostgreSQL alike."""

import inspect
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine

from coordinator.domain.account import ALL_SCOPES, Account, Role, Scope, token_name
from coordinator.domain.act import Act
from coordinator.domain.host import HostState, Isolation
from coordinator.domain.job import GpuRequest, LogState, LogTotals, ReportedEnd
from coordinator.domain.states import AttemptState, Cause, EndReason, JobState
from coordinator.store import ports
from coordinator.store.transaction import SqlTransaction
from ledger.entries import hold
from runtime.ids import new_uuid
from tests.support import store_fixtures
from tests.support.store_fixtures import BUYER, DIGEST, SELLER
from tests.support.values import BOOT, HOST_BOOT, at, attempt, job, meter, spec

# Accounts, tokens, requests.


def test_accounts_are_found_by_id_by_name_and_in_the_order_of_names(market: SqlTransaction) -> None:
    both = Account(id="acct_both", name="both", roles=frozenset({Role.SELLER, Role.BUYER}))
    assert market.insert_account(both, 1)
    assert not market.insert_account(replace(both, id="acct_x"), 1), "the name is taken"
    assert market.account("acct_both") == market.account_named("both") == both
    assert market.account("acct_nobody") is market.account_named("nobody") is None
    assert [a.name for a in market.accounts_after("", 10)] == ["both", "buyer", "seller"]
    assert [a.name for a in market.accounts_after("both", 1)] == ["buyer"]


def test_a_token_is_good_until_it_expires(market: SqlTransaction) -> None:
    market.insert_token(b"t" * 32, BUYER, now_ms=100, expires_ms=200)
    found = market.bearer(b"t" * 32, 199)
    assert found is not None
    assert (found.account.id, found.scopes) == (BUYER, ALL_SCOPES)
    assert market.bearer(b"t" * 32, 200) is None
    assert market.bearer(b"u" * 32, 150) is None


def test_a_token_opens_what_it_was_made_for_and_tells_when_it_was_used(market: SqlTransaction) -> None:
    scopes = frozenset({Scope.JOBS_READ, Scope.WALLET_READ})
    market.insert_token(b"t" * 32, BUYER, now_ms=100, expires_ms=200, scopes=scopes)
    found = market.bearer(b"t" * 32, 150)
    assert found is not None
    assert found.scopes == scopes
    market.save_token_uses({b"t" * 32: 170, b"u" * 32: 171})
    (token,) = market.tokens_before(BUYER, None, None, 10)
    assert (token.scopes, token.last_used_ms) == (scopes, 170)


def test_an_account_s_tokens_are_listed_newest_first_and_revoked_for_good(market: SqlTransaction) -> None:
    for number in (1, 2, 3):
        market.insert_token(bytes([number] * 32), BUYER, 10 * (number // 2), 1_000 + number, f"no. {number}")
    names = [token_name(bytes([number] * 32)) for number in (3, 2, 1)]
    tokens = market.tokens_before(BUYER, None, None, 9)
    assert [(one.id, one.created_ms, one.label) for one in tokens] == [
        (names[0], 10, "no. 3"),
        (names[1], 10, "no. 2"),
        (names[2], 0, "no. 1"),
    ]
    assert market.tokens_before(BUYER, None, (10, names[0]), 1) == tokens[1:2]
    assert market.tokens_before(SELLER, None, None, 9) == []
    bearer = market.bearer(bytes([2] * 32), 50)
    assert bearer is not None
    assert bearer.expires_ms == tokens[1].expires_ms == 1_002
    assert market.revoke_token(SELLER, names[1], 50) is None, "it is not theirs"
    assert market.revoke_token(BUYER, "tok_nonsense", 50) is None
    assert market.revoke_token(BUYER, names[1], 50) == replace(tokens[1], revoked_ms=50)
    assert market.revoke_token(BUYER, names[1], 60) == replace(tokens[1], revoked_ms=50), "once"
    assert market.bearer(bytes([2] * 32), 60) is None
    assert [one.id for one in market.tokens_before(BUYER, 60, None, 9)] == [names[0], names[2]]
    assert market.tokens_before(BUYER, 1_002, None, 9) == tokens[:1], "the others are over"


def test_acts_are_read_newest_first_of_all_or_of_one(market: SqlTransaction) -> None:
    acts = [
        Act(
            id=f"act_{number}",
            happened_ms=number,
            who=who,
            token_id="",
            address="127.0.0.1",
            rpc="/usance.v1.AdminService/Deposit",
            request="{}",
            result="OK",
            request_id=f"rpc_{number}",
        )
        for number, who in enumerate((BUYER, SELLER, BUYER), start=1)
    ]
    market.append_acts(acts)
    assert market.acts_before("", 0, "", 9) == acts[::-1]
    assert market.acts_before("", 2, "", 9) == [acts[2], acts[1]]
    assert market.acts_before("", 0, "act_3", 1) == [acts[1]]
    assert market.acts_before(BUYER, 0, "", 9) == [acts[2], acts[0]]


def test_a_request_is_remembered_with_its_answer(market: SqlTransaction) -> None:
    assert market.recall(BUYER, "r1") is None
    market.remember(BUYER, "r1", DIGEST, "job_1")
    assert market.recall(BUYER, "r1") == (DIGEST, "job_1")
    assert market.recall(SELLER, "r1") is None


# Jobs.


def test_what_nobody_may_read_goes_with_the_job(market: SqlTransaction) -> None:
    before = job("job_2", spec=spec(secret_names=("A",)))
    market.insert_jobs([before, job("job_3")])
    market.insert_sealed({"job_2": b"\0box"})
    assert market.sealed(["job_2", "job_3"]) == {"job_2": b"\0box"}
    assert market.sealed([]) == {}
    market.insert_sealed({"job_3": b"box"})
    assert market.sealed_after("", 1) == [("job_2", BUYER, b"\0box")]
    assert market.sealed_after("job_2", 9) == [("job_3", BUYER, b"box")]
    market.reseal("job_3", b"another")
    assert market.sealed(["job_3"]) == {"job_3": b"another"}
    runs = replace(before, state=JobState.RUNNING)
    assert market.save_job(before, runs)
    assert market.sealed(["job_2"]) == {"job_2": b"\0box"}
    assert market.save_job(runs, replace(runs, state=JobState.FAILED, cause=Cause.BUYER, ended_ms=9))
    assert market.sealed(["job_2"]) == {}


def test_a_job_comes_back_as_it_went_in(market: SqlTransaction) -> None:
    full = job(
        "job_2",
        spec=spec(
            command=("sh", "-c", "a\nb", ""),
            env={"A": "1\n2", "B": "ü"},
            gpus=GpuRequest(count=3, model="rtx", vram_bytes_min=1 << 40),
            isolation_min=Isolation.PROCESS,
            gpu_hour_price_micro_max=2**53 - 1,
            budget_micro=2**53 - 1,
            run_ms_max=5,
            stop_grace_ms=0,
            retries_max=10,
            queue_ms_max=6,
            memory_bytes=16 << 40,
            cpu_milli=100,
        ),
        state=JobState.FAILED,
        cause=Cause.HOST,
        detail="a sentence",
        ended_ms=9,
        charged_micro=2**53 - 2,
        retries_used=3,
        exit_code=-9,
    )
    market.insert_job(full)
    assert market.job("job_2") == full
    assert market.job("job_9") is None


def test_jobs_are_listed_newest_first_and_by_pages(market: SqlTransaction) -> None:
    market.insert_job(job("job_2", state=JobState.CANCELLED, ended_ms=1))
    market.insert_job(job("job_3"))

    def ids(*, live_only: bool = False, before_id: str = "", limit: int = 9) -> list[str]:
        return [j.id for j in market.jobs_of(BUYER, live_only=live_only, before_id=before_id, limit=limit)]

    assert ids() == ["job_3", "job_2", "job_1"]
    assert ids(live_only=True) == ["job_3", "job_1"]
    assert ids(before_id="job_3", limit=1) == ["job_2"]
    assert market.jobs_of(SELLER, live_only=False, before_id="", limit=9) == []


def test_the_queue_is_the_queued_oldest_first(market: SqlTransaction) -> None:
    market.insert_job(job("job_0", state=JobState.STARTING))
    market.insert_job(job("job_2"))
    assert [j.id for j in market.queue(9)] == ["job_1", "job_2"]
    assert [j.id for j in market.queue(1)] == ["job_1"]


@pytest.mark.parametrize("stale", [{"state": JobState.RUNNING}, {"charged_micro": 5}])
def test_a_job_is_written_over_what_was_read_alone(market: SqlTransaction, stale) -> None:
    after = job(state=JobState.STARTING, detail="goes")
    assert not market.save_job(job(**stale), after)
    assert market.job("job_1") == job()
    assert market.save_job(job(), after)
    assert market.job("job_1") == after


# Attempts.


def ended(**changes):
    plain = {"state": AttemptState.ENDED, "end_reason": EndReason.EXITED, "cause": Cause.BUYER}
    return attempt(**{**plain, **changes})


def test_an_attempt_comes_back_as_it_went_in(market: SqlTransaction) -> None:
    market.insert_attempt(attempt())
    assert market.attempt("att_1") == attempt()
    assert market.attempt("att_9") is None
    full = ended(
        meter=replace(
            meter(),
            container_id="c",
            host_boot_id=HOST_BOOT,
            sighted=at(5),
            stop_asked=at(6),
            witnessed_ms=7,
            usage_number=2,
            usage_end_ms=9,
            usage_digest=b"\xff" * 32,
            billed_ms=7,
        ),
        paid_through_ms=11,
        run_ms_reported=10,
        stop_reason=EndReason.CANCELLED,
        reported_end=ReportedEnd(
            reason=EndReason.EXITED, exit_code=None, usage_number=2, detail="d", at=at(8, boot_id=BOOT)
        ),
        exit_code=137,
        detail="a sentence",
        lie="a lie",
        log_offset=4,
        log_totals=LogTotals(
            stdout_bytes=3, stderr_bytes=1, stdout_sha256=b"\x01" * 32, stderr_sha256=b"\xfe" * 32
        ),
        log_state=LogState.COMPLETE,
    )
    assert market.save_attempt(attempt(), full)
    assert market.attempt("att_1") == full


@pytest.mark.parametrize(
    "stale",
    [
        {"state": AttemptState.PREPARING},
        {"epoch": 2},
        {"log_offset": 5},
        {"meter": meter(usage_number=1)},
    ],
)
def test_an_attempt_is_written_over_what_was_read_alone(market: SqlTransaction, stale) -> None:
    market.insert_attempt(attempt())
    assert not market.save_attempt(attempt(**stale), ended())
    assert market.attempt("att_1") == attempt()
    assert not market.rooms()[0].free or market.rooms()[0].free[0].uuid != "GPU-1"


def test_a_gpu_in_use_is_not_given(market: SqlTransaction) -> None:
    market.insert_job(job("job_2"))
    assert market.insert_attempt(attempt())
    second = attempt(id="att_2", job_id="job_2", meter=meter(attempt_id="att_2"))
    assert not market.insert_attempt(second)
    assert market.attempt("att_2") is None
    market.save_attempt(attempt(), ended())
    assert market.insert_attempt(second)


def test_attempts_are_found_by_job_by_host_and_by_what_is_awaited_of_them(market: SqlTransaction) -> None:
    market.insert_job(job("job_2"))
    market.insert_attempt(attempt())
    market.save_attempt(attempt(), ended(log_state=LogState.INCOMPLETE))
    second = attempt(id="att_2", epoch=2, meter=meter(attempt_id="att_2", epoch=2))
    market.insert_attempt(second)
    found = market.attempts_of_jobs(["job_1", "job_2", "job_9"])
    assert {key: [a.id for a in of] for key, of in found.items()} == {
        "job_1": ["att_1", "att_2"],
        "job_2": [],
        "job_9": [],
    }
    assert [a.id for a in market.attempts_on_host("host_1")] == ["att_2"], "the first is wholly over"
    assert market.attempts_on_host("host_9") == []
    assert awaited(market) == ["att_2"], "its host never said that it knows it"
    told = replace(
        second,
        state=AttemptState.RUNNING,
        reported_end=ReportedEnd(reason=EndReason.EXITED, exit_code=0, usage_number=1, detail="", at=at(1)),
    )
    market.save_attempt(second, told)
    assert awaited(market) == ["att_2"], "the last of its usage"
    runs = replace(told, reported_end=None)
    market.save_attempt(told, runs)
    assert awaited(market) == []
    market.save_attempt(runs, told)
    stopping = replace(told, state=AttemptState.STOPPING, reported_end=None)
    market.save_attempt(told, stopping)
    assert awaited(market) == ["att_2"], "that it has stopped"
    market.save_attempt(stopping, replace(told, state=AttemptState.STOPPING))
    told = replace(told, state=AttemptState.STOPPING)
    over = replace(told, state=AttemptState.ENDED, end_reason=EndReason.EXITED, cause=Cause.BUYER)
    market.save_attempt(told, over)
    assert [a.id for a in market.attempts_on_host("host_1")] == ["att_2"], "its output is still awaited"
    assert awaited(market) == ["att_2"]
    assert market.attempts_awaited("att_2", 9).rows == []
    market.save_attempt(over, replace(over, log_state=LogState.INCOMPLETE))
    assert awaited(market) == []


def awaited(market: SqlTransaction) -> list[str]:
    return [found.id for found in market.attempts_awaited("", 9).rows]


def test_jobs_are_fetched_together_and_gpus_counted_by_buyer(market: SqlTransaction) -> None:
    market.insert_job(job("job_2"))
    assert market.jobs(["job_1", "job_2", "job_9"]) == {"job_1": job(), "job_2": job("job_2")}
    assert market.held_by_buyers() == {}
    market.insert_attempt(attempt())
    assert market.held_by_buyers() == {BUYER: 1}


def test_what_upkeep_asks_for(market: SqlTransaction) -> None:
    market.insert_attempt(attempt())
    assert market.live_attempts("", 9) == market.live_attempts("att_0", 1) == [attempt()]
    assert market.live_attempts("att_1", 9) == []
    assert market.attempts_of_lost_hosts() == [attempt()], "it has not connected yet"
    market.save_link("host_1", HostState.LOST, HostState.ONLINE, "connected", 5)
    assert market.attempts_of_lost_hosts() == []
    assert market.unreleased("", 9) == ([], ""), "no job has ended"
    held = hold(transfer_id=new_uuid(), account_id=BUYER, job_id="job_1", amount_micro=7, event_ms=1)
    market.post([held], 1)
    over = job(state=JobState.CANCELLED, cause=Cause.BUYER, ended_ms=5)
    market.save_job(job(), over)
    assert market.unreleased("", 9) == ([(over, 7)], "job_1")
    assert market.unreleased("job_1", 9) == ([], "")
    violations, looked_at = market.sample_violations("", 5)
    assert list(looked_at) == ["job_1", "job_1"], "as one of the newest, and in its turn"
    assert violations == ["job_1 should hold 0 but holds 7", "job_1 is cancelled and has 1 live attempts"]


def test_every_verb_is_tried_here() -> None:
    verbs = {
        name
        for port in ports.Transaction.__mro__
        for name, member in vars(port).items()
        if inspect.isfunction(member) and not name.startswith("_")
    }
    files = [*Path(__file__).parent.glob("test_store*.py"), Path(store_fixtures.__file__)]
    text = "".join(file.read_text() for file in files)
    assert {verb for verb in verbs if f".{verb}(" not in text} == set()


def test_both_databases_are_what_production_makes(market_engine: Engine) -> None:
    from coordinator.store.migrate import current, head

    assert current(market_engine) == head()
