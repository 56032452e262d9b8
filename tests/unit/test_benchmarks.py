"""What `make bench` writes of what the benchmarks have told, and what `make soak` makes of its curves."""

import os
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from benchmarks import plot
from benchmarks.all import NAMES, Part, beside_bars, page, run
from benchmarks.report import Figure, at_least, at_most
from benchmarks.soak import Curves, _size, judged

GOOD = at_most("beats, us", 12.0, 10.0, 1.5, 1.1)
BAD = at_least("jobs/s, beside another", 2_500.0, 1_000.0, 5, 10, "it is told why")
REMARKS = {"jobs/s": {"reason": "A commit waits.", "next": "Gather."}}


def test_the_page_says_what_is_below_its_bar_and_why():
    told = page([Part(name="wire", figures=[GOOD, BAD])], REMARKS, ["a machine"])
    assert "| beats, us | 12 | 10 | 1.2 | <= 1.5 x | <= 1.1 x | ok |" in told
    assert "| jobs/s, beside another | 2,500 | 1,000 | 2.5 | >= 5 x | >= 10 x | **below** |" in told
    assert "- **Below its bar**, jobs/s, beside another: A commit waits. Next: Gather." in told
    assert "- jobs/s, beside another: it is told why" in told


def test_what_has_no_remark_and_what_did_not_run_is_said():
    told = page([Part(name="wire", figures=[BAD]), Part(name="agent", failed="no engine")], {}, [])
    assert "nobody has said why yet" in told
    assert "**It could not be run here:** no engine." in told


def test_how_often_a_figure_fits_into_its_bar():
    slow = Figure(figure="help, ms", ours=500.0, ratio=3.0, bar="<= 250 ms")
    plain = Figure(figure="a rate", ours=5.0)
    values = dict(beside_bars([Part(name="any", figures=[GOOD, BAD, slow, plain])]))
    assert values == {
        "beats, us": pytest.approx(1.25),
        "jobs/s, beside another": pytest.approx(0.5),
        "help, ms": pytest.approx(0.5),
    }


def test_pictures_are_well_formed():
    lines = {"memory <MiB>": {"one & only": [(0.0, 1.0), (1.0, 2.0)]}}
    for picture in (plot.bars("a & b", [("x < y", 2.0), ("z", 0.5)]), plot.curves("nothing", {}),
                    plot.bars("none", []), plot.curves("curves", lines)):  # fmt: skip
        assert ET.fromstring(picture).tag.endswith("svg")


def test_one_that_ends_badly_is_a_part_that_failed(monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 3, "half a line"))
    assert run(NAMES[0], quick=True).failed == "it ended with status 3 and told nothing"


@pytest.mark.parametrize(("growth", "flat"), [(0.0, True), (0.5, False)])
def test_a_curve_that_grows_is_told_from_one_that_does_not(growth, flat):
    seen = Curves()
    for minute in range(40):
        seen.add("memory, MiB", "coordinator", minute, 100 + growth * 2 * minute)
    ((what, *_, ok),) = judged(seen)
    assert (what, ok) == ("memory, MiB, coordinator", flat)


def test_a_folder_that_goes_while_a_soak_looks_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A soak of an hour ended where an agent cleared a run away."""
    (tmp_path / "kept").write_bytes(b"12345")
    (tmp_path / "run" / "output").mkdir(parents=True)
    look = os.scandir

    def late(path: str | Path) -> Any:
        if str(path).endswith("output"):
            Path(path).rmdir()
        return look(path)

    monkeypatch.setattr(os, "scandir", late)
    assert _size(tmp_path) == len(b"12345")
