"""What is old leaves the database and can be read back; the books go to other programs."""

import base64
import csv
import gzip
import io
import json
import subprocess
from pathlib import Path

import grpc.aio
import pytest

from coordinator.__main__ import main
from coordinator.keeping.archive import archive, month_start_ms
from coordinator.services import retention
from coordinator.settings import Settings
from coordinator.store.transaction import SqlTransaction
from ledger.engine import make_engine
from tests.integration.test_ledger_export import bean_check, check, hledger
from tests.support.running_coordinator import Running, copy_of, running
from tests.support.scripts import Play, all_of, goes_on, read_logs, refusal, started
from usance.v1 import types_pb2 as t

__all__ = ["bean_check", "hledger"]
Text = pytest.CaptureFixture[str]
LATER_MS = 60_000


async def two_jobs(market: Running) -> list[str]:
    """One ends well, of the other something goes back; both wrote something."""
    ended = []
    for reason in (t.END_REASON_EXITED, t.END_REASON_GPU_LOST):
        agent = market.agents[0] if market.agents else await market.agent()
        job, run = await started(market, agent)
        for run_ms in (10_000, 20_000):
            await goes_on(market, agent, run, run_ms, by_ms=10_000)
            await agent.usage(run, run.record(run_ms))
        await agent.logs(run, run.writes(b"out"))
        await agent.beat(run.ended(0 if reason == t.END_REASON_EXITED else None, reason))
        await market.buyer.ended(job.job_id)
        ended.append(job.job_id)
    return ended


def archived(settings: Settings, now_ms: int) -> list[str]:
    engine = make_engine(settings.database_url)
    try:
        return [one.file for one in archive(engine, settings.data_dir / "archive", now_ms, now_ms)]
    finally:
        engine.dispose()


def run(settings: Settings, *arguments: str) -> int:
    flags = ["--data-dir", str(settings.data_dir)]
    return main([*arguments, *flags, *(["--database", settings.database] if settings.database else [])])


def test_what_has_left_is_told_where_and_can_be_read_back(play_on_both: Play, capsys: Text) -> None:
    async def script(market: Running) -> None:
        first, second = await two_jobs(market)
        bill = await market.buyer.bill(first)
        charged = (await market.buyer.job(second)).charged_micro
        now_ms = market.clock.wall_ms() + LATER_MS
        (file,) = archived(market.settings, now_ms)
        assert archived(market.settings, now_ms) == [], "all that was old has left"
        with pytest.raises(grpc.aio.AioRpcError) as asked:
            await market.buyer.bill(first)
        assert refusal(asked.value) == "NOT_FOUND"
        assert file in (asked.value.details() or "")
        with pytest.raises(grpc.aio.AioRpcError) as asked:
            await all_of(read_logs(market, first))
        assert file in (asked.value.details() or "")
        assert (await market.buyer.job(second)).charged_micro == charged
        await market.audit()
        assert run(market.settings, "archive", "--show", first) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [one["digest"] for one in lines if one.get("kind") == "line"] == [
            one.record.digest.hex() for one in bill.attempts[0].lines
        ]
        (output,) = [one for one in lines if one.get("kind") == "output"]
        assert base64.b64decode(output["data"]) == b"out"
        assert [one["event"] for one in lines if one.get("kind") == "event"][-1] == "ended"
        assert run(market.settings, "archive", "--check") == 0
        assert "4 parts of jobs looked up, 0 not as they were" in capsys.readouterr().err
        path = market.settings.data_dir / "archive" / file
        raw = gzip.decompress(path.read_bytes())
        path.write_bytes(gzip.compress(raw.replace(b'"end_ms": 20000', b'"end_ms": 20001', 1)))
        assert run(market.settings, "archive", "--check") == 1
        assert f"records of {first} is not what left the database" in capsys.readouterr().out
        path.unlink()
        assert run(market.settings, "archive", "--show", first) == 1

    play_on_both(script)


def test_old_output_is_dropped_where_that_is_set(play: Play) -> None:
    async def script(market: Running) -> None:
        first, _ = await two_jobs(market)
        assert market.database is not None
        now_ms = market.clock.wall_ms()

        def drop(days_later: int) -> int:
            assert market.database is not None
            at_ms = now_ms + days_later * retention.DAY_MS + LATER_MS
            return market.database.write(lambda tx: retention.drop_output_once(tx, 30, "", at_ms)).result()[0]

        assert [drop(29), drop(30), drop(31)] == [0, 2, 0]
        with pytest.raises(grpc.aio.AioRpcError, match="kept for as long as the operator keeps it"):
            await all_of(read_logs(market, first))
        assert (await market.buyer.bill(first)).final

    play(script)


def test_a_month_is_named_as_such(template: Settings, tmp_path: Path, capsys: Text) -> None:
    settings = copy_of(template, tmp_path / "data")
    assert month_start_ms("1970-02") == 31 * retention.DAY_MS
    for month, words in (("January", "a month as 2026-01"), ("2999-01", "has not begun yet")):
        assert run(settings, "archive", "--before", month) == 2
        assert words in capsys.readouterr().err
    assert run(settings, "archive", "--before", "2026-01") == 0
    assert capsys.readouterr().out == "0 jobs left the database\n"
    assert run(settings, "archive", "--show", "job_x") == 2


@pytest.fixture(scope="module")
def books(template: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A market that has charged for two jobs."""
    import asyncio

    settings = copy_of(template, tmp_path_factory.mktemp("books") / "data")

    async def whole() -> None:
        async with running(settings) as market:
            await two_jobs(market)

    asyncio.run(whole())
    return settings


@pytest.mark.parametrize("what", ["ledger", "bills"])
def test_beancount_and_hledger_take_the_books(
    books: Settings, what: str, tmp_path: Path, capsys: Text, bean_check: Path, hledger: str
) -> None:
    def written(form: str) -> Path:
        assert run(books, "export", what, "--format", form) == 0
        path = tmp_path / f"books.{form}"
        path.write_text(capsys.readouterr().out)
        assert path.stat().st_size > 200
        return path

    beans: subprocess.CompletedProcess[str] = check(bean_check, "--no-cache", str(written("beancount")))
    assert beans.returncode == 0, beans.stderr
    journal = written("hledger")
    assert check(hledger, "-f", str(journal), "check").returncode == 0
    fees = check(hledger, "-f", str(journal), "balance", "Income:Fee", "--no-total", "--flat")
    # Of the first job; of the second all went back.
    assert fees.stdout.split()[0] == "-0.001000"
    broken = tmp_path / "broken.journal"
    broken.write_text(journal.read_text().replace("-0.001000", "-0.001001", 1))
    assert check(hledger, "-f", str(broken), "check").returncode != 0


def test_bills_say_what_was_charged_and_what_went_back(books: Settings, capsys: Text) -> None:
    assert run(books, "export", "bills") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert run(books, "export", "bills", "--format", "json") == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == rows
    money = ("charged", "earned", "fee", "given_back", "end_reason", "billed_ms")
    assert [[row[name] for name in money] for row in rows] == [
        ["0.020000", "0.019000", "0.001000", "0.000000", "exited", "20000"],
        ["0.020000", "0.019000", "0.001000", "0.020000", "gpu_lost", "20000"],
    ]
    engine = make_engine(books.database_url)
    with engine.begin() as connection:
        now_ms = 4_000_000_000_000
        assert SqlTransaction(connection).archivable(now_ms, "", 9)
    engine.dispose()
    archived(books, now_ms)
    assert run(books, "export", "bills", "--format", "json") == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == rows, "archived or not"
