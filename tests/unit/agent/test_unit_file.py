"""The unit is one that systemd takes, and what it may do is as little as is said."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.need import need

PACKAGING = Path(__file__).parents[3] / "packaging"
UNIT = "usance-agent.service"
EXPOSURE_MOST = 3.0
EXPOSURE_WITH_NETWORK_MOST = 3.5


@pytest.fixture
def analyze(tmp_path: Path):
    """systemd-analyze on a copy of the unit, with programs that are there."""
    program = shutil.which("systemd-analyze")
    need(program is not None, "systemd-analyze", "apt-get install systemd")
    assert program is not None
    here = (PACKAGING / UNIT).read_text().replace("/usr/bin/usance-agent", "/bin/true")
    (tmp_path / UNIT).write_text(here.replace("/usr/bin/nvidia-smi", "/bin/true"))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [program, *arguments, str(tmp_path / UNIT)]
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)

    return run


def exposure(text: str) -> float:
    found = re.search(r"Overall exposure level for .*: ([0-9.]+)", text)
    assert found is not None, text
    return float(found.group(1))


def test_systemd_takes_the_unit(analyze):
    done = analyze("verify", "--man=no", "--recursive-errors=no")
    assert (done.returncode, done.stderr.strip()) == (0, "")


def test_its_exposure_is_low(analyze, tmp_path):
    # It exits with 1 above its threshold, and the figure counts.
    told = analyze("security", "--offline=true", "--no-pager")
    assert exposure(told.stdout) < EXPOSURE_MOST
    folder = tmp_path / f"{UNIT}.d"
    folder.mkdir()
    shutil.copy(PACKAGING / "usance-agent-network.conf", folder / "network.conf")
    with_network = analyze("security", "--offline=true", "--no-pager")
    assert EXPOSURE_MOST < exposure(with_network.stdout) < EXPOSURE_WITH_NETWORK_MOST


def test_what_outlives_the_agent_is_left_alone_when_it_stops():
    text = (PACKAGING / UNIT).read_text()
    assert "KillMode=process\n" in text
    assert "Type=notify\n" in text
