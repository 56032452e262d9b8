"""What is made wrong on purpose is found, and its remedy is named."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from agent.domain.checkup import examine
from agent.domain.facts import (
    DriverFacts,
    EngineFacts,
    Facts,
    GpuFacts,
    MachineFacts,
    MarketFacts,
    NetworkFacts,
    ToolkitFacts,
)
from agent.domain.versions import ENGINE, RUNC, TOOLKIT, Floor, Rank, rank
from agent.executor import survey
from runtime.findings import Verdict, worst

GOOD, DOUBT, BAD = Verdict.GOOD, Verdict.DOUBT, Verdict.BAD
WELL = Facts(
    machine=MachineFacts(
        clock_synchronized=True,
        state_dir="/var/lib/usance",
        state_free_bytes=100 << 30,
        state_filesystem="ext4",
        state_mode=0o700,
    ),
    market=MarketFacts(address="market.example:7443", state="online", certificate_hours=100),
    driver=DriverFacts(
        library_version="570.86.15",
        kernel_version="570.86.15",
        gpus=(GpuFacts(uuid="GPU-1", model="NVIDIA GeForce RTX 4090", start_error=""),),
    ),
    engine=EngineFacts(
        address="unix:///var/run/docker.sock",
        version="28.5.2",
        runc_version="1.4.1",
        security=("name=seccomp,profile=builtin", "name=userns"),
        cgroup_driver="systemd",
        devices=("nvidia.com/gpu=GPU-1",),
        disk_free_bytes=500 << 30,
    ),
    toolkit=ToolkitFacts(version="1.20.0", cli_version="1.20.0", config_path="/etc/config.toml"),
    network=NetworkFacts(promised="internet", error=""),
)


def on(part: str, **changes: Any) -> Callable[[Facts], Facts]:
    return lambda facts: replace(facts, **{part: replace(getattr(facts, part), **changes)})


def gpu(**changes: Any) -> Callable[[Facts], Facts]:
    return lambda facts: on("driver", gpus=(replace(facts.driver.gpus[0], **changes),))(facts)


def without_cdi(toolkit: Callable[[Facts], Facts]) -> Callable[[Facts], Facts]:
    return lambda facts: toolkit(on("engine", devices=())(facts))


FAULTS: dict[str, tuple[Callable[[Facts], Facts], str, Verdict, str]] = {
    "settings": (on("machine", settings_error="line 3: prices"), "settings", BAD, "usance-agent settings"),
    "no price": (on("machine", priced=False), "settings", BAD, "usance-agent price"),
    "no driver": (on("driver", error="not installed"), "driver", BAD, "nvidia-smi"),
    "driver upgraded": (on("driver", kernel_version="560.1"), "driver", BAD, "reboot"),
    "no GPU": (on("driver", gpus=()), "driver", BAD, "lspci"),
    "one silent": (on("driver", silent=("GPU 1: GPU is lost",)), "GPUs", DOUBT, "--gpu-reset"),
    "owner's use": (gpu(trouble="in use by processes"), "GPU GPU-1", DOUBT, "not sold meanwhile"),
    "no engine": (on("engine", error="no answer"), "engine", BAD, "systemctl start docker"),
    "old engine": (on("engine", version="24.0.7"), "engine", BAD, "28.2"),
    "old runc": (on("engine", runc_version="1.1.11"), "runc", BAD, "upgrade runc"),
    "runc of a distribution": (on("engine", runc_version="1.1.5+ds1-1+deb12u1"), "runc", DOUBT, "fixes"),
    "seccomp off": (on("engine", security=("name=userns",)), "seccomp", BAD, "seccomp-profile"),
    "seccomp unconfined": (
        on("engine", security=("name=seccomp,profile=unconfined", "name=userns")),
        "seccomp",
        BAD,
        "daemon.json",
    ),
    "no user namespaces": (
        on("engine", security=("name=seccomp,profile=builtin",)),
        "user namespaces",
        DOUBT,
        "userns-remap",
    ),
    "seccomp of its own": (
        on("engine", security=("name=seccomp,profile=/etc/docker/mine.json", "name=userns")),
        "seccomp",
        DOUBT,
        "daemon.json",
    ),
    "limits": (on("engine", limits_missing=("processes",)), "limits", BAD, "cgroups"),
    "no live-restore": (on("engine", live_restore=False), "live-restore", DOUBT, "daemon.json"),
    "no toolkit": (
        without_cdi(on("toolkit", version="", cli_version="")),
        "toolkit",
        BAD,
        "nvidia-container-toolkit",
    ),
    "old toolkit": (on("toolkit", version="1.17.7"), "toolkit", BAD, "1.20"),
    "its library older": (on("toolkit", cli_version="1.16.1"), "toolkit", BAD, "libnvidia-container"),
    "no CDI": (without_cdi(lambda facts: facts), "CDI", DOUBT, "nvidia-ctk cdi generate"),
    "swarm-resource": (
        on("toolkit", swarm_resource="DOCKER_RESOURCE_GPU"),
        "swarm-resource",
        BAD,
        "/etc/config.toml",
    ),
    "environment refused": (
        without_cdi(on("toolkit", takes_environment=False)),
        "toolkit's config",
        BAD,
        "accept-nvidia-visible-devices",
    ),
    "config broken": (on("toolkit", config_error="line 1"), "toolkit's config", BAD, "/etc/config.toml"),
    "nvidia by default": (
        on("engine", default_runtime="nvidia"),
        "default runtime",
        DOUBT,
        "default-runtime",
    ),
    "daemon-reload": (without_cdi(on("toolkit", has_char_links=False)), "/dev/char", DOUBT, "symlinks"),
    "no start": (gpu(start_error="unresolvable"), "start with GPU GPU-1", BAD, "nvidia-ctk cdi list"),
    "not root": (on("machine", is_root=False), "network", BAD, "root"),
    "no iptables": (on("network", missing_programs=("iptables",)), "network", BAD, "install iptables"),
    "network open": (on("network", error="reached 10.0.0.1"), "network", BAD, "firewalld"),
    "clock": (on("machine", clock_synchronized=False), "clock", DOUBT, "set-ntp"),
    "clock behind": (on("market", certificate_is_early=True), "clock", BAD, "set-ntp"),
    "state read-only": (on("machine", state_writable=False), "state folder", BAD, "remount"),
    "state in memory": (on("machine", state_filesystem="tmpfs"), "state folder", BAD, "state_dir"),
    "state for all": (on("machine", state_mode=0o755), "state folder", BAD, "chmod 700"),
    "disk full": (on("machine", state_free_bytes=1 << 20), "state folder", BAD, "free at least"),
    "engine's disk full": (on("engine", disk_free_bytes=1 << 30), "engine's disk", DOUBT, "prune"),
    "not enrolled": (on("market", enrolled=False), "market", BAD, "usance-agent enroll"),
    "identity unreadable": (on("market", enrolled=False, error="denied"), "market", BAD, "as root"),
    "certificate late": (on("market", certificate_is_late=True), "certificate", DOUBT, "its log"),
    "certificate over": (on("market", certificate_hours=-1), "certificate", BAD, "new token"),
    "no coordinator": (on("market", error="UNAVAILABLE"), "coordinator", BAD, "market.example:7443"),
    "paused": (on("market", state="paused"), "coordinator", DOUBT, "usance-agent resume"),
}


def test_a_machine_that_is_well_is_told_so():
    found = examine(WELL)
    assert worst(found) is GOOD
    assert not any(one.remedy for one in found)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_and_its_remedy_named(name):
    make, check, verdict, remedy = FAULTS[name]
    (found,) = [one for one in examine(make(WELL)) if one.check == check]
    assert found.verdict is verdict
    assert remedy in found.remedy


def test_the_toolkits_settings_are_read_and_what_is_no_settings_file_is_told(tmp_path):
    nothing = survey.toolkit_facts(tmp_path / "none")
    assert (nothing.takes_environment, nothing.config_error) == (True, "")
    config = tmp_path / "config.toml"
    config.write_text("swarm-resource = \n")
    assert "line 1" in survey.toolkit_facts(config).config_error
    config.write_text("accept-nvidia-visible-devices-envvar-when-unprivileged = false\n")
    told = survey.toolkit_facts(config)
    assert (told.takes_environment, told.config_error) == (False, "")


def test_a_machine_without_an_engine_is_warned():
    found = examine(replace(WELL, engine=None))
    assert [one.check for one in found if one.verdict is DOUBT] == ["isolation"]


@pytest.mark.parametrize(
    ("text", "floor", "expected"),
    [
        ("1.2.8", RUNC, Rank()),
        ("1.2.7", RUNC, Rank(is_below=True)),
        ("1.3.3-rc1", RUNC, Rank()),
        ("1.5.0", RUNC, Rank()),
        ("1.1.5+ds1-1+deb12u1", RUNC, Rank(is_unsure=True)),
        ("", RUNC, Rank(is_unsure=True)),
        ("25.0.3", ENGINE, Rank(is_old=True)),
        ("20.10.24+dfsg1", ENGINE, Rank(is_unsure=True)),
        ("1.17.8", TOOLKIT, Rank(is_old=True)),
        ("v1.20.1", TOOLKIT, Rank()),
    ],
)
def test_versions_stand_to_their_floors(text: str, floor: Floor, expected: Rank):
    assert rank(text, floor) == expected
