"""A real Prometheus reads a real market by the files that are shipped, and its alerts fire on faults."""

import json
import re
import sqlite3
import urllib.request
from collections.abc import Iterator
from contextlib import closing

import pytest

from cli.model import Isolation, JobSpec
from cli.wishes import GpuRequest
from runtime.ids import new_uuid
from tests.docs.dashboards import files
from tests.docs.metrics import agent_figures, coordinator_figures
from tests.rig.fixtures import parts_needed
from tests.rig.prometheus import Prometheus, promtool
from tests.support.market import OPERATOR, WholeMarket
from tests.support.watched import SHIPPED, rules, watched_market

pytestmark = pytest.mark.slow
Watched = tuple[WholeMarket, Prometheus]
CREDIT = 1_000_000


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with parts_needed(), watched_market(tmp_path_factory.mktemp("watched")) as both:
        yield both


def submit(market: WholeMarket, script: str, gpus: int = 1) -> str:
    spec = JobSpec(
        name="job",
        image="",
        command=("sh", "-c", script),
        env=(),
        gpus=GpuRequest(count=gpus),
        isolation_min=Isolation.PROCESS,
        gpu_hour_price_micro_max=0,
        budget_micro=60 * CREDIT,
        run_ms_max=60_000,
        stop_grace_ms=500,
        retries_max=0,
    )
    return market.ask("buyer", lambda client: client.submit_job(spec, str(new_uuid()))).job_id


def page(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
        return text


def test_the_rules_hold_what_their_own_tests_say():
    with parts_needed():
        for arguments in (
            ("check", "rules", "usance.rules.yml"),
            ("check", "config", "prometheus.yml"),
            ("test", "rules", "usance.rules.test.yml"),
        ):
            done = promtool(*arguments[:2], str(SHIPPED / arguments[2]))
            assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_tests_and_a_word_on_what_to_do():
    text = (SHIPPED / "usance.rules.yml").read_text()
    alerts = re.findall(r"alert: (\w+)", text)
    tested = (SHIPPED / "usance.rules.test.yml").read_text()
    assert len(alerts) == len(set(alerts))
    assert set(re.findall(r"alertname: (\w+)", tested)) == set(alerts)
    # Each is seen to fire there, not only to be silent.
    assert {name for name in alerts if f"alertname: {name}\n" in tested} == set(alerts)
    docs = (SHIPPED.parents[1] / "docs" / "alerts.md").read_text()
    assert re.findall(r"^### (\w+)$", docs, re.MULTILINE) == alerts
    assert re.findall(r"runbook: docs/alerts.md#(\w+)", text) == [name.lower() for name in alerts]


def test_rules_and_dashboards_name_figures_that_there_are():
    there = {name for told in (*coordinator_figures(), *agent_figures()) for name in told.series}
    texts = [(SHIPPED / "usance.rules.yml").read_text(), rules(), *files().values()]
    named = {name for text in texts for name in re.findall(r"\b(?:usance|process)_[a-z0-9_]+", text)}
    assert named - there == set()
    assert len(named) > 40


def test_both_pages_are_as_prometheus_likes_them(watched):
    market, prometheus = watched
    job_id = submit(market, "sleep 2; echo done")
    prometheus.until(lambda: prometheus.value("usance_job_run_seconds") is not None, "the job is seen")
    market.ask("buyer", lambda client: client.wait_job(job_id))
    prometheus.until(
        lambda: prometheus.value('usance_jobs_ended_total{state="succeeded",cause="buyer"}') == 1,
        "its end is seen",
    )
    assert prometheus.value('sum(up{job=~"usance-.*"})') == 2
    # The buyer's money, and what the ledger says that it came to.
    bill = market.ask("buyer", lambda client: client.get_bill(job_id))
    moved = prometheus.value('usance_credits_moved_total{kind="capture"}')
    assert moved is not None
    assert round(moved * CREDIT) == bill.charged_micro > 0
    targets = prometheus.ask("targets")["activeTargets"]
    assert {target["lastError"] for target in targets} == {""}
    for target in targets:
        done = promtool("check", "metrics", given=page(target["discoveredLabels"]["__address__"]))
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_one_request_id_from_the_command_line_to_the_machine_and_back(watched):
    market, _ = watched
    market.usance("buyer", "run", "-y", "--budget", "50", "--isolation", "process", "--", "true")
    request_id = market.usance_json("buyer", "show", "@last")["job"]["request_id"]
    assert request_id.startswith("req_")
    lines = [line for line in market.log("coordinator").splitlines() if request_id in line]
    assert any("/SubmitJob OK" in line for line in lines)
    assert any("/WatchJob" in line or "/ReadLogs" in line for line in lines)
    assert any("is succeeded" in line for line in lines)
    machine = [line for line in market.log("agent-one").splitlines() if request_id in line]
    assert [line for line in machine if " begins" in line]
    assert [line for line in machine if " ended: exited" in line]
    acts = market.usance(OPERATOR, "admin", "audit-log", "--json").stdout
    assert request_id in acts
    # What is refused is found in the log by what the command line says.
    with pytest.raises(RuntimeError, match=r'"request_id":\s*"req_') as refused:
        market.usance("buyer", "cancel", "job_01m00000000000000000000000", "--json")
    (said,) = re.findall(r'"request_id":\s*"(req_\w+)"', str(refused.value))
    assert f"{said} /usance.v1.MarketService/" in market.log("coordinator")


def test_every_query_of_the_dashboards_is_answered(watched):
    _, prometheus = watched
    answered = set()
    for path, text in files().items():
        for panel in json.loads(text)["panels"]:
            for target in panel["targets"]:
                query = target["expr"].replace("$__rate_interval", "1m").replace("$host", ".*")
                if prometheus.ask("query", query=query)["result"]:
                    answered.add((path.stem, panel["title"]))
    panels = {
        (path.stem, panel["title"]) for path, text in files().items() for panel in json.loads(text)["panels"]
    }
    # GPUs that do not exist give no errors; the job is over, or not.
    may_be_empty = {("seller", "Errors of GPUs, an hour"), ("seller", "Jobs: how long they have run")}
    assert panels - answered <= may_be_empty


def test_alerts_fire_on_faults_made_on_purpose(watched):
    market, prometheus = watched
    # No backup was ever made. (What others do to the machine's disk may fire, too.)
    faults = {"QueueStuck", "HostLost", "TargetDown", "AuditViolation"}
    prometheus.until(lambda: not faults & prometheus.firing(), "all else is well")
    prometheus.until(lambda: "BackupTooOld" in prometheus.firing(), "that there is no backup is told")
    submit(market, "true", gpus=3)
    prometheus.until(lambda: "QueueStuck" in prometheus.firing(), "the queue is told to be stuck")
    market.kill_agent("one")
    prometheus.until(lambda: {"HostLost", "TargetDown"} <= prometheus.firing(), "the host is told to be lost")
    assert "AuditViolation" not in prometheus.firing()
    market.kill_coordinator()
    # Somebody writes to the database by hand: a job costs more than its bill says.
    with closing(sqlite3.connect(market.folder / "coordinator" / "usance.db")) as connection, connection:
        connection.execute("UPDATE job SET charged_micro = charged_micro + 1 WHERE state = 'succeeded'")
    market.start_coordinator()
    prometheus.until(lambda: "AuditViolation" in prometheus.firing(), "the audit's find is told")
    (log,) = [line for line in market.log("coordinator").splitlines() if "VIOLATED" in line][:1]
    assert "but its bill says" in log
