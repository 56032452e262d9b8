"""Versions of what keeps jobs in, and below which of them a machine is not safe, or not well served.

Distributions mend old versions and keep their numbers: of such a one nobody can say by its number what is in
it, so it is doubted, not refused.
"""

import re
from dataclasses import dataclass

_NUMBERS = re.compile(r"v?(\d+(?:\.\d+)*)")
# How distributions mark what they have built themselves.
_BUILT_ELSEWHERE = re.compile(r"(\+ds|\+dfsg|deb\d|ubuntu|\.el\d|\.fc\d|~|-r\d)")


@dataclass(frozen=True, kw_only=True)
class Floor:
    """What is refused below `least`, and doubted below `wanted`. `why` names what is open below the least."""

    least: tuple[int, ...]
    wanted: tuple[int, ...]
    why: str
    # Branches that are kept up beside the newest, each with the least of it.
    branches: tuple[tuple[int, ...], ...] = ()


ENGINE = Floor(least=(25, 0), wanted=(28, 2), why="it can't be handed GPUs by their names (CDI)")
RUNC = Floor(
    least=(1, 4, 0),
    wanted=(1, 4, 0),
    why="containers can break out of it (CVE-2025-31133, CVE-2025-52565, CVE-2025-52881)",
    branches=((1, 2, 8), (1, 3, 3)),
)
TOOLKIT = Floor(
    least=(1, 17, 8),
    wanted=(1, 20, 0),
    why="an image can take over the machine (CVE-2025-23266, CVE-2025-23267)",
)


@dataclass(frozen=True, kw_only=True)
class Rank:
    """Where a version stands to its floor."""

    is_below: bool = False
    # Below by its number, but somebody else has built it.
    is_unsure: bool = False
    is_old: bool = False


def rank(text: str, floor: Floor) -> Rank:
    found = _NUMBERS.search(text)
    if found is None:
        return Rank(is_unsure=True)
    version = tuple(int(part) for part in found.group(1).split("."))
    if version >= floor.wanted:
        return Rank()
    if any(_same_branch(version, branch) and version >= branch for branch in floor.branches):
        return Rank()
    if version >= floor.least:
        return Rank(is_old=True)
    return Rank(is_unsure=True) if _BUILT_ELSEWHERE.search(text) else Rank(is_below=True)


def numbers(floor: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in floor)


def _same_branch(version: tuple[int, ...], branch: tuple[int, ...]) -> bool:
    return version[:2] == branch[:2]
