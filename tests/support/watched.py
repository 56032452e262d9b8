"""A market of real processes, and a real Prometheus that reads it by the rules that are shipped."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.rig.parts import free_port
from tests.rig.prometheus import Prometheus, running_prometheus
from tests.support.agent_terms import AgentTerms
from tests.support.market import WholeMarket

SHIPPED = Path(__file__).parents[2] / "packaging" / "prometheus"
WINDOW_MS = 1_500
# What is waited for as a person would wait, made short; each must be there as it is here.
SHORTER = {
    "usance_queue_age_seconds > 900 and increase(usance_job_queue_seconds_count[15m])": (
        "usance_queue_age_seconds > 1 and increase(usance_job_queue_seconds_count[2s])"
    ),
    'usance_host_link_changes_total{state="lost"}[15m]': 'usance_host_link_changes_total{state="lost"}[1m]',
}


def rules(shorter: Mapping[str, str] = SHORTER) -> str:
    """As they are shipped, but nothing has to be so for long before it is told."""
    text = (SHIPPED / "usance.rules.yml").read_text()
    for long, short in shorter.items():
        assert text.count(long) == 1, long
        text = text.replace(long, short)
    return re.sub(r"for: \d+[mh]", "for: 0s", text)


def config(coordinator: str, agents: str, rules_file: Path, every: str = "200ms") -> str:
    text = (SHIPPED / "prometheus.yml").read_text()
    changes = {"127.0.0.1:7412": coordinator, "127.0.0.1:9464": agents, "usance.rules.yml": str(rules_file)}
    for shipped, ours in changes.items():
        assert text.count(shipped) == 1, shipped
        text = text.replace(shipped, ours)
    return text.replace("interval: 15s", f"interval: {every}")


@contextmanager
def watched_market(
    folder: Path, *, gpus: int = 2, every: str = "200ms", hurried: bool = True
) -> Iterator[tuple[WholeMarket, Prometheus]]:
    """With a buyer of 1000 credits, and one machine that trusts them."""
    market, agents = WholeMarket(folder / "m", window_ms=WINDOW_MS), f"127.0.0.1:{free_port()}"
    rules_file = folder / "rules.yml"
    rules_file.write_text(rules() if hurried else (SHIPPED / "usance.rules.yml").read_text())
    # First, for it takes five seconds until it looks for the first time.
    with running_prometheus(config(market.metrics_address, agents, rules_file, every)) as prometheus:
        try:
            market.start()
            market.open_account("buyer", "buyer", deposit="1000")
            market.open_account("seller", "seller")
            listen = f'metrics_listen = "{agents}"'
            terms = AgentTerms(simulated_gpus=gpus, trusted_accounts=("buyer",), more=listen)
            market.add_agent("one", "seller", terms)
            prometheus.until(lambda: prometheus.value("sum(up)") == 2, "both are seen")
            yield market, prometheus
        finally:
            print(market.log("coordinator")[-5_000:], market.log("agent-one")[-5_000:])
            market.stop()
