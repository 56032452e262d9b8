"""What a check-up has found: each check with a verdict, and a remedy where all is not well. Pure."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How bad it is."""

    GOOD = "good"
    # It works; jobs, money or trust are lost sooner than need be.
    DOUBT = "doubt"
    # It does not work, or must not.
    BAD = "bad"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the table. The remedy is empty where all is well."""

    check: str
    found: str
    verdict: Verdict
    remedy: str = ""


def good(check: str, found: str) -> Finding:
    return Finding(check=check, found=found, verdict=Verdict.GOOD)


def doubt(check: str, found: str, remedy: str) -> Finding:
    return Finding(check=check, found=found, verdict=Verdict.DOUBT, remedy=remedy)


def bad(check: str, found: str, remedy: str) -> Finding:
    return Finding(check=check, found=found, verdict=Verdict.BAD, remedy=remedy)


def worst(findings: Sequence[Finding]) -> Verdict:
    order = list(Verdict)
    return max((one.verdict for one in findings), key=order.index, default=Verdict.GOOD)


def as_text(findings: Sequence[Finding]) -> str:
    """A table for people; remedies stand below what they are for."""
    checks = max((len(one.check) for one in findings), default=0)
    lines = []
    for one in findings:
        lines.append(f"{one.verdict.value:5}  {one.check:{checks}}  {one.found}")
        if one.remedy:
            lines.append(f"{'':5}  {'':{checks}}  -> {one.remedy}")
    return "\n".join(lines)


def as_json(findings: Sequence[Finding]) -> dict[str, object]:
    return {"findings": [asdict(one) for one in findings]}
