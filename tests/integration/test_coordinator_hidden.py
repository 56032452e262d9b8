"""What one may not see does not exist: the same words, and the same work behind them.

Time can't be asserted on a machine that others use. What takes the time can: both answers ask the database
the same questions, in the same order.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc.aio
import pytest
from sqlalchemy import Engine, event

from coordinator.api.access import ACCESS, Access
from runtime.ids import new_uuid
from tests.fuzz.attack import METHODS, MODULES
from tests.support.running_coordinator import Person, Running
from tests.support.scripts import Play, refusal, started
from usance.v1 import books_pb2 as b
from usance.v1 import types_pb2 as t

# Fields that name something which is somebody's.
OWNED = {"job_id", "host_id", "attempt_id", "token_id"}
TRIES = 3
NEVER = {
    "job_id": "job_00000000000000000000000000",
    "host_id": "host_00000000000000000000000000",
    "attempt_id": "att_00000000000000000000000000",
    "token_id": "tok_0000000000000000",
}


@contextmanager
def questions() -> Iterator[list[str]]:
    """Every statement that the database is given meanwhile."""
    asked: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        asked.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield asked
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def asked_by_people() -> Iterator[tuple[str, Any, str]]:
    """Each RPC of people's with each of its fields that names what is somebody's."""
    for name, method in METHODS:
        if ACCESS[name].access in {Access.BUYER, Access.SELLER, Access.ACCOUNT}:
            for field in method.input_type.fields:
                if field.name in OWNED:
                    yield name, method, field.name


async def answer(person: Person, market: Running, name: str, method: Any, named: dict[str, str]) -> str:
    request = getattr(MODULES[method.input_type.file.name], method.input_type.name)(**named)
    if "request_id" in method.input_type.fields_by_name:
        request.request_id = str(new_uuid())
    if "budget_micro_more" in method.input_type.fields_by_name:
        request.budget_micro_more = 1
    raw, metadata = request.SerializeToString(), person.metadata
    call: Any
    if method.server_streaming:
        call = market.channel.unary_stream(name)(raw, metadata=metadata, timeout=30).read()
    else:
        call = market.channel.unary_unary(name)(raw, metadata=metadata, timeout=30)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    words = str(caught.value.details())
    for value in named.values():
        words = words.replace(value, "it")
    return f"{refusal(caught.value)}: {words}"


def test_what_is_anothers_is_answered_as_what_never_was(play_on_both: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent(gpu_count=2)
        job, run = await started(market, agent)
        (token, *_) = (
            await market.operator.ask(
                market.operator.tokens.ListTokens, b.ListTokensRequest(account_name="buyer")
            )
        ).tokens
        other = await market.account("other", t.ROLE_BUYER, t.ROLE_SELLER, deposit_micro=1_000_000)
        own = await other.submit(budget_micro=1_000)
        anothers = {
            "job_id": job.job_id,
            "host_id": agent.host_id,
            "attempt_id": run.wanted.attempt_id,
            "token_id": token.token_id,
        }
        tried = set()
        for name, method, field in asked_by_people():
            # An attempt is one of a job, and that one is the caller's.
            more = {"job_id": own.job_id} if field == "attempt_id" else {}
            seen = []
            for names in (anothers, NEVER):
                tries = []
                for _ in range(TRIES):
                    with questions() as asked:
                        said = await answer(other, market, name, method, {field: names[field], **more})
                    tries.append((said, asked))
                # What the coordinator does by itself once a second may come between.
                seen.append(min(tries, key=lambda each: len(each[1])))
            assert seen[0] == seen[1], (name, field)
            assert seen[0][0].startswith("NOT_FOUND"), (name, seen[0][0])
            assert seen[0][1], f"{name} has asked nothing"
            tried.add(name.rpartition("/")[2])
        assert tried == {
            *("GetJob", "WatchJob", "ReadLogs", "CancelJob", "ExtendJob", "GetBill"),
            *("PauseHost", "ResumeHost", "ReclaimHost", "RevokeToken"),
        }

    play_on_both(script)
