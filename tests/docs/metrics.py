"""The tables of docs/metrics.md: every figure that the programs tell, from the programs themselves."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from agent.domain.exposition import render
from agent.domain.figures import families
from coordinator.api.metrics import Metrics
from tests.support.figures import EVERYTHING

# What a histogram has of its own.
_OWN_LABELS = {"le"}


@dataclass(frozen=True, kw_only=True)
class Told:
    """A figure as it is written down."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str
    # What a query may ask for: a histogram has several.
    series: tuple[str, ...]


def coordinator_figures() -> list[Told]:
    return _from_registry(Metrics().registry)


def _from_registry(registry: CollectorRegistry) -> list[Told]:
    found = []
    for collector in registry._collector_to_names:
        labels = tuple(getattr(collector, "_labelnames", ()))
        for family in collector.collect():
            name = family.name + ("_total" if family.type == "counter" else "")
            suffixes = ("_bucket", "_sum", "_count") if family.type == "histogram" else ("",)
            found.append(
                Told(
                    name=name,
                    kind=family.type,
                    labels=labels,
                    text=family.documentation,
                    series=tuple(f"{name}{suffix}" for suffix in suffixes),
                )
            )
    return found


def agent_figures() -> list[Told]:
    text, found = render(families(EVERYTHING)), []
    for family in text_string_to_metric_families(text):
        (name,) = {sample.name for sample in family.samples}
        labels = dict.fromkeys(label for sample in family.samples for label in sample.labels)
        found.append(
            Told(
                name=name,
                kind=family.type,
                labels=tuple(labels),
                text=family.documentation,
                series=(name,),
            )
        )
    return found


def tables() -> Iterator[str]:
    yield from ["### Of the coordinator", ""]
    yield from _table(coordinator_figures())
    yield from ["", "### Of the agent", ""]
    yield from _table(agent_figures())


def _table(figures: Iterable[Told]) -> Iterator[str]:
    yield "| figure | kind | labels | meaning |"
    yield "| --- | --- | --- | --- |"
    for told in figures:
        labels = ", ".join(f"`{label}`" for label in told.labels if label not in _OWN_LABELS)
        yield f"| `{told.name}` | {told.kind} | {labels} | {told.text.replace('|', 'or')} |"
