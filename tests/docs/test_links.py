"""Every link of every page leads somewhere, to the very heading, and every page can be reached."""

import re
from pathlib import Path

import pytest

from coordinator.commands import parser
from tests.docs.reference import DOCS, ROOT

PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)


def links(page: Path) -> list[str]:
    return _LINK.findall(_FENCE.sub("", page.read_text(encoding="utf-8")))


def anchors(page: Path) -> set[str]:
    """As code hosts make them of headings."""
    found = set()
    for heading in _HEADING.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))):
        words = re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", heading).lower())
        found.add(words.strip().replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        if link.startswith(("https://", "http://", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{link}: there is no such file"
        assert not anchor or anchor in anchors(target), f"{link}: there is no such heading"


def test_every_page_can_be_reached_from_the_index() -> None:
    reached, waiting = set[Path](), [DOCS / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        for link in links(page):
            target = (page.parent / link.partition("#")[0]).resolve()
            waiting += [target] if target.suffix == ".md" and target.exists() else sorted(target.glob("*.md"))
    assert set(DOCS.rglob("*.md")) - reached == set()


def test_every_command_of_the_coordinator_that_a_page_shows_exists() -> None:
    known = parser()._subparsers
    assert known is not None
    names = set(known._group_actions[0].choices or ())
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        shown = set(re.findall(r"usance-coordinator ([a-z][a-z-]+)\b", _shell(text)))
        assert shown <= names, f"{page.name}: {shown - names}"


def _shell(text: str) -> str:
    """What stands in shell blocks and in back-quotes."""
    blocks = re.findall(r"^ *```(?:sh)?\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    return "\n".join([*blocks, *re.findall(r"`(usance-coordinator [^`\n]+)`", text)])
