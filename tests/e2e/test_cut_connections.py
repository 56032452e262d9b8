"""A hundred submits over a line that is cut again and again with answers still on it make a hundred jobs."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.client.calls import Patience
from cli.client.market import Market, open_market
from cli.connection import Connection
from cli.errors import UsanceError
from cli.model import Isolation, JobSpec
from cli.wishes import GpuRequest
from runtime.ids import new_uuid
from tests.support.cutting_proxy import cutting_proxy
from tests.support.market import OPERATOR, WholeMarket

pytestmark = pytest.mark.slow

JOBS, BUDGET_MICRO = 100, 1_000
# A handshake takes some 2,500 bytes, an answer some 300: each line holds for a few, the last for good.
ANSWER_BYTES_MAX = (3_500, 5_000, 4_000, 6_500, 4_200, 5_500, 1 << 30)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def market(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[WholeMarket]:
    database = None if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    made = WholeMarket(tmp_path / "m", database=database)
    try:
        made.start()
        made.open_account("buyer", "buyer", deposit="10")
        yield made
    finally:
        print(made.log("coordinator")[-5_000:])
        made.stop()


async def submit_over_a_bad_line(connection: Connection) -> tuple[list[str], int, int]:
    """The jobs' ids as they were answered, how often the line was cut, and how often a try failed."""
    troubles: list[UsanceError] = []
    spec = JobSpec(
        name="one",
        image="",
        command=("true",),
        env=(),
        gpus=GpuRequest(),
        isolation_min=Isolation.PROCESS,
        gpu_hour_price_micro_max=0,
        budget_micro=BUDGET_MICRO,
        run_ms_max=0,
        stop_grace_ms=None,
        retries_max=0,
    )
    async with cutting_proxy(connection.target, ANSWER_BYTES_MAX) as (address, proxy):
        bad = Connection(target=address, authority_pem=connection.authority_pem, token=connection.token)
        patience = Patience(call_ms=120_000)
        async with open_market(bad, patience=patience, on_trouble=troubles.append) as client:

            async def submit() -> str:
                return (await client.submit_job(spec, str(new_uuid()))).job_id

            job_ids = await asyncio.gather(*(submit() for _ in range(JOBS)))
    return job_ids, proxy.cuts, len(troubles)


async def all_ids(client: Market) -> list[str]:
    return [job.job_id async for job in client.list_jobs(page_size=30)]


def test_each_is_one_job_however_often_its_answer_was_lost(market: WholeMarket) -> None:
    job_ids, cuts, troubles = asyncio.run(submit_over_a_bad_line(market.connection("buyer")))
    assert cuts >= len(ANSWER_BYTES_MAX) - 1
    assert troubles >= cuts
    assert len(set(job_ids)) == JOBS
    assert sorted(market.ask("buyer", all_ids)) == sorted(job_ids)
    wallet = market.ask("buyer", lambda client: client.get_wallet())
    assert (wallet.held_micro, wallet.wallet_micro) == (JOBS * BUDGET_MICRO, 10_000_000 - JOBS * BUDGET_MICRO)
    assert market.ask(OPERATOR, lambda client: client.run_audit()).violations == ()
