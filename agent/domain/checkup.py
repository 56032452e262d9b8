"""What is wrong with a machine that is to sell its GPUs, and what to do about it.

Facts come in as values, findings go out; nothing here looks at the machine.
"""

from collections.abc import Iterator

from agent.domain.facts import (
    DriverFacts,
    EngineFacts,
    Facts,
    MachineFacts,
    MarketFacts,
    NetworkFacts,
    ToolkitFacts,
)
from agent.domain.versions import ENGINE, RUNC, TOOLKIT, Floor, numbers, rank
from runtime.findings import Finding, bad, doubt, good

GIB = 1 << 30
STATE_FREE_BYTES_LEAST = 2 * GIB
CLOCK_MS_MOST = 5_000
_IN_MEMORY = ("tmpfs", "ramfs")


def examine(facts: Facts) -> list[Finding]:
    """Every check, in the order in which a person would mend things."""
    found = [*_settings(facts.machine), *_driver(facts.driver)]
    if facts.engine is None:
        remedy = 'set executor = "docker" before you take jobs of strangers'
        found.append(doubt("isolation", "jobs run as processes, with your own rights", remedy))
    else:
        found += _engine(facts.engine)
        if not facts.driver.simulated:
            if not facts.engine.error and facts.driver.gpus:
                found += _toolkit(facts.toolkit, facts.engine)
                found += _starts(facts.driver)
            else:
                # A bare machine is told of everything at once.
                found += _absent_toolkit(facts.toolkit, facts.engine)
        found += _network(facts.network, facts.machine)
    return [*found, *_clock(facts.machine, facts.market), *_disk(facts), *_market(facts.market)]


def _settings(machine: MachineFacts) -> Iterator[Finding]:
    if machine.settings_error:
        yield bad("settings", machine.settings_error, "mend the line that is named; usance-agent settings")
    elif not machine.priced:
        yield bad("settings", "no GPU has a price", 'usance-agent price "*" 0.50, or [prices] in the file')
    else:
        yield good("settings", "read, and whole")


def _driver(driver: DriverFacts) -> Iterator[Finding]:
    if driver.simulated:
        yield doubt("driver", f"{len(driver.gpus)} simulated GPUs", "set simulated_gpus.count = 0 to sell")
        return
    if driver.error:
        yield bad(
            "driver",
            driver.error,
            "apt-get install nvidia-driver (of Debian's non-free), reboot; nvidia-smi should list the GPUs",
        )
        return
    halves = driver.library_version, driver.kernel_version
    if all(halves) and halves[0] != halves[1]:
        found = f"the library is {halves[0]}, the kernel's module {halves[1]}"
        yield bad("driver", found, "reboot, or load the module anew: the driver was upgraded under it")
    elif not driver.gpus:
        yield bad(
            "driver", "it has no GPU", "see lspci and the kernel's log; is the card seated and powered?"
        )
    else:
        yield good("driver", driver.library_version or "it answers")
    for told in driver.silent:
        remedy = (
            "nvidia-smi --gpu-reset, or a reboot; see the kernel's log (NVRM) and how the card is powered"
        )
        yield doubt("GPUs", f"{told}: it is not offered", remedy)
    for gpu in driver.gpus:
        if gpu.trouble:
            remedy = (
                "end what uses it, or wait: it is not sold meanwhile. A lost one needs a reset or a reboot"
            )
            yield doubt(f"GPU {gpu.uuid}", gpu.trouble, remedy)
        else:
            yield good(f"GPU {gpu.uuid}", gpu.model)


def _engine(engine: EngineFacts) -> Iterator[Finding]:
    if engine.error:
        remedy = (
            "apt-get install docker.io; where it is there already: systemctl start docker. "
            f"docker_host is {engine.address}"
        )
        yield bad("engine", engine.error, remedy)
        return
    yield _floor("engine", engine.version, ENGINE, "upgrade the Docker Engine")
    yield _floor(
        "runc", engine.runc_version, RUNC, "upgrade runc, or the package that brings it (containerd.io)"
    )
    names = {dict(_pairs(text)).get("name", "") for text in engine.security}
    profiles = [dict(_pairs(text)).get("profile", "") for text in engine.security if "seccomp" in text]
    if "seccomp" not in names or "unconfined" in profiles:
        remedy = (
            'remove "seccomp-profile": "unconfined" from /etc/docker/daemon.json; use a kernel with seccomp'
        )
        yield bad("seccomp", "jobs may call anything of the kernel", remedy)
    elif not set(profiles) <= {"builtin", "default"}:
        remedy = (
            'remove "seccomp-profile" from /etc/docker/daemon.json, or see that it refuses what theirs does'
        )
        yield doubt("seccomp", f"a profile that is not the engine's own: {profiles[0]}", remedy)
    else:
        yield good("seccomp", "on")
    if "userns" in names or "rootless" in names:
        yield good("user namespaces", "root in a job is nobody here")
    else:
        remedy = 'add "userns-remap": "default" to /etc/docker/daemon.json and restart the engine'
        yield doubt("user namespaces", "root in a job is root here, held by its container alone", remedy)
    if engine.limits_missing:
        remedy = "mount the kernel's cgroups for them (cgroup_enable=memory swapaccount=1 at boot)"
        yield bad("limits", f"jobs can't be held to their {', '.join(engine.limits_missing)}", remedy)
    else:
        yield good("limits", "memory, processes and processor time")
    if engine.live_restore:
        yield good("live-restore", "on")
    else:
        remedy = 'add "live-restore": true to /etc/docker/daemon.json and reload the engine'
        yield doubt("live-restore", "off: a restart of the engine ends every job at your cost", remedy)


def _toolkit(toolkit: ToolkitFacts, engine: EngineFacts) -> Iterator[Finding]:
    absent = list(_absent_toolkit(toolkit, engine))
    if absent:
        yield from absent
        return
    has_cdi = _has_cdi(engine)
    told = [text for text in (toolkit.version, toolkit.cli_version) if text]
    if told:
        worst_of = min(told, key=lambda text: _order(text, TOOLKIT))
        yield _floor("toolkit", worst_of, TOOLKIT, "upgrade nvidia-container-toolkit and libnvidia-container")
    if has_cdi:
        yield good("CDI", "the engine knows GPUs by their names")
    else:
        remedy = "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml, and restart the engine"
        yield doubt("CDI", "the engine knows no GPU by its name; the toolkit's hook is used instead", remedy)
    if toolkit.config_error:
        remedy = f"mend {toolkit.config_path}, or move it away: nvidia-ctk config --in-place writes a new one"
        yield bad("toolkit's config", toolkit.config_error, remedy)
    if toolkit.swarm_resource:
        remedy = f"remove swarm-resource from {toolkit.config_path}"
        found = f"an image can take every GPU by the variable {toolkit.swarm_resource}"
        yield bad("swarm-resource", found, remedy)
    if not toolkit.takes_environment and not has_cdi:
        name = "accept-nvidia-visible-devices-envvar-when-unprivileged"
        remedy = f"make CDI work, or set {name} = true in {toolkit.config_path}"
        yield bad("toolkit's config", "containers start without the GPUs that they bought", remedy)
    if engine.default_runtime != "runc":
        remedy = 'remove "default-runtime" from /etc/docker/daemon.json, unless you need it yourself'
        found = f"the engine runs containers by {engine.default_runtime}; jobs ask for runc by name"
        yield doubt("default runtime", found, remedy)
    if engine.cgroup_driver == "systemd" and not has_cdi and not toolkit.has_char_links:
        remedy = "nvidia-ctk system create-dev-char-symlinks --create-all, at each boot; or use CDI"
        yield doubt("/dev/char", "a systemctl daemon-reload takes GPUs away from running jobs", remedy)


def _absent_toolkit(toolkit: ToolkitFacts, engine: EngineFacts) -> Iterator[Finding]:
    if not toolkit.version and not toolkit.cli_version and not _has_cdi(engine):
        remedy = (
            "install nvidia-container-toolkit (NVIDIA's repository has it), nvidia-ctk runtime configure "
            "--runtime=docker, and restart the engine"
        )
        yield bad("toolkit", "nothing hands GPUs to containers", remedy)


def _has_cdi(engine: EngineFacts) -> bool:
    return any(name.startswith("nvidia.com/gpu=") for name in engine.devices)


def _starts(driver: DriverFacts) -> Iterator[Finding]:
    for gpu in driver.gpus:
        if gpu.start_error:
            remedy = "see the engine's log; nvidia-ctk cdi list shows what it can hand over"
            yield bad(f"start with GPU {gpu.uuid}", gpu.start_error, remedy)
        elif gpu.start_error is not None:
            yield good(f"start with GPU {gpu.uuid}", "a container got it")


def _network(network: NetworkFacts, machine: MachineFacts) -> Iterator[Finding]:
    if network.promised == "none":
        yield good("network", "jobs have none")
    elif not machine.is_root:
        yield bad("network", "jobs can't be held to what they may reach", "run the agent as root")
    elif network.missing_programs:
        missing = ", ".join(network.missing_programs)
        yield bad("network", f"there is no {missing}", "apt-get install iptables iproute2")
    elif network.error:
        remedy = 'see what else sets packet filter rules (firewalld, ufw, nftables), or set network = "none"'
        yield bad("network", network.error, remedy)
    elif network.error is None:
        yield doubt("network", f"{network.promised}; nobody tried it", "run the doctor as root")
    else:
        yield good("network", f"{network.promised}, and proved to hold")


def _clock(machine: MachineFacts, market: MarketFacts) -> Iterator[Finding]:
    if market.certificate_is_early:
        remedy = "timedatectl set-ntp true, or date --set; nobody can be reached while it is wrong"
        yield bad("clock", "by it, this host's own certificate has not begun: it is behind", remedy)
    elif machine.clock_synchronized is False:
        remedy = "timedatectl set-ntp true; certificates and what people read go by this clock"
        yield doubt("clock", "nothing keeps it right", remedy)
    elif machine.clock_synchronized:
        yield good("clock", "kept right")


def _disk(facts: Facts) -> Iterator[Finding]:
    machine, engine = facts.machine, facts.engine
    free = machine.state_free_bytes
    if machine.state_filesystem in _IN_MEMORY:
        remedy = f"move state_dir to a disk: a power cut takes {machine.state_dir}, and unsent usage with it"
        yield bad("state folder", f"{machine.state_dir} is in memory ({machine.state_filesystem})", remedy)
    elif machine.state_mode is not None and machine.state_mode & 0o077:
        remedy = f"chmod 700 {machine.state_dir}"
        yield bad("state folder", "others on this machine can read the host's key", remedy)
    elif not machine.state_writable:
        remedy = "mount -o remount,rw its disk, see what made it read-only (dmesg), or run this as root"
        yield bad("state folder", f"{machine.state_dir} can't be written", remedy)
    elif free is not None and free < STATE_FREE_BYTES_LEAST:
        remedy = f"free at least {STATE_FREE_BYTES_LEAST // GIB} GiB below {machine.state_dir}"
        yield bad("state folder", f"{free >> 20} MiB are free", remedy)
    elif free is not None:
        yield good("state folder", f"{free // GIB} GiB free")
    if engine is not None and engine.disk_free_bytes is not None:
        if engine.disk_free_bytes < 10 * GIB:
            remedy = "docker system prune, or a larger disk for the engine; jobs bring images of many GB"
            yield doubt("engine's disk", f"{engine.disk_free_bytes // GIB} GiB free", remedy)
        else:
            yield good("engine's disk", f"{engine.disk_free_bytes // GIB} GiB free")


def _market(market: MarketFacts) -> Iterator[Finding]:
    if not market.enrolled:
        if market.error:
            remedy = "run this as root; if the file is damaged: usance-agent enroll with a new token"
            yield bad("market", f"this host's identity can't be read: {market.error}", remedy)
        else:
            yield bad("market", "this machine is no host yet", "usance-agent enroll TOKEN")
        return
    hours = market.certificate_hours
    if hours is not None and hours < 0:
        yield bad("certificate", "it is over", "usance-agent enroll with a new token")
    elif market.certificate_is_late:
        remedy = "the agent renews it by itself where it can; does it run, and what does its log say?"
        yield doubt("certificate", f"good for {hours} hours, and not renewed", remedy)
    elif hours is not None:
        yield good("certificate", f"good for {hours} hours, and renewed in time")
    if market.error:
        remedy = f"can this machine reach {market.address}? It needs no open port, but this way out"
        yield bad("coordinator", market.error, remedy)
    elif market.state and market.state != "online":
        remedy = "ask the operator" if market.state == "quarantined" else "usance-agent resume"
        yield doubt("coordinator", f"this host is {market.state}: {market.reason}", remedy)
    else:
        yield good("coordinator", f"{market.address} answers")


def _floor(check: str, version: str, floor: Floor, remedy: str) -> Finding:
    place = rank(version, floor)
    if place.is_below:
        return bad(check, f"{version}: {floor.why}", f"{remedy} to {numbers(floor.wanted)} or newer")
    if place.is_unsure:
        found = f"{version or 'unknown'}: nobody can say by this whether it is mended"
        return doubt(check, found, f"{remedy}; at least {numbers(floor.least)} has the fixes")
    if place.is_old:
        return doubt(check, version, f"{remedy} to {numbers(floor.wanted)} or newer")
    return good(check, version)


def _order(text: str, floor: Floor) -> tuple[bool, bool, bool]:
    """The worst first."""
    place = rank(text, floor)
    return not place.is_below, not place.is_unsure, not place.is_old


def _pairs(text: str) -> list[tuple[str, str]]:
    parts = (part.partition("=") for part in text.split(","))
    return [(name, value) for name, _, value in parts]
