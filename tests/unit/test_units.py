"""The units are such as systemd takes, and what they may do is as little as is said."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.need import need

PACKAGING = Path(__file__).parents[2] / "packaging"
AGENT, COORDINATOR = "usance-agent.service", "usance-coordinator.service"
EXPOSURE_MOST = {AGENT: 3.0, COORDINATOR: 1.3}
EXPOSURE_WITH_NETWORK_MOST = 3.5


@pytest.fixture
def analyze(tmp_path: Path):
    """systemd-analyze on a copy of a unit, with programs that are there."""
    program = shutil.which("systemd-analyze")
    need(program is not None, "systemd-analyze", "apt-get install systemd")
    assert program is not None

    def run(unit: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        text = (PACKAGING / unit).read_text()
        (tmp_path / unit).write_text(
            re.sub(r"/usr/bin/(usance-agent|usance-coordinator|nvidia-smi)", "/bin/true", text)
        )
        argv = [program, *arguments, str(tmp_path / unit)]
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)

    return run


def exposure(text: str) -> float:
    found = re.search(r"Overall exposure level for .*: ([0-9.]+)", text)
    assert found is not None, text
    return float(found.group(1))


@pytest.mark.parametrize("unit", [AGENT, COORDINATOR])
def test_systemd_takes_the_unit(analyze, unit):
    done = analyze(unit, "verify", "--man=no", "--recursive-errors=no")
    assert (done.returncode, done.stderr.strip()) == (0, "")


@pytest.mark.parametrize("unit", [AGENT, COORDINATOR])
def test_its_exposure_is_low(analyze, unit):
    # It exits with 1 above its threshold, and the figure counts.
    told = analyze(unit, "security", "--offline=true", "--no-pager")
    assert exposure(told.stdout) < EXPOSURE_MOST[unit]


def test_a_network_for_jobs_costs_little_of_that(analyze, tmp_path):
    folder = tmp_path / f"{AGENT}.d"
    folder.mkdir()
    shutil.copy(PACKAGING / "usance-agent-network.conf", folder / "network.conf")
    with_network = exposure(analyze(AGENT, "security", "--offline=true", "--no-pager").stdout)
    assert EXPOSURE_MOST[AGENT] < with_network < EXPOSURE_WITH_NETWORK_MOST


@pytest.mark.parametrize("unit", [AGENT, COORDINATOR])
def test_systemd_is_told_when_it_is_ready(unit):
    assert "Type=notify\n" in (PACKAGING / unit).read_text()


def test_what_outlives_the_agent_is_left_alone_when_it_stops():
    assert "KillMode=process\n" in (PACKAGING / AGENT).read_text()
