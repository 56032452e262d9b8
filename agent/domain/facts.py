"""What the check-up has found out about a machine: values, and nothing of what they mean.

`None` is what nobody could tell.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class EngineFacts:
    """What the container engine says of itself; of one that does not answer only the error."""

    address: str
    error: str = ""
    version: str = ""
    runc_version: str = ""
    default_runtime: str = "runc"
    # As it names them: "name=seccomp,profile=builtin", "name=userns".
    security: tuple[str, ...] = ()
    live_restore: bool = True
    cgroup_driver: str = ""
    # Names of devices that it can hand over, "nvidia.com/gpu=GPU-…".
    devices: tuple[str, ...] = ()
    disk_free_bytes: int | None = None
    # What it can't keep a job within: "memory", "processes", …
    limits_missing: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ToolkitFacts:
    """What hands GPUs to containers. Versions are empty where a program is not there."""

    version: str = ""
    cli_version: str = ""
    # Of its config.toml; the values that it has where the file says nothing.
    config_path: str = ""
    config_error: str = ""
    swarm_resource: str = ""
    takes_environment: bool = True
    # Does the driver's place in /dev/char have its links, without which a daemon-reload takes GPUs away?
    has_char_links: bool = True


@dataclass(frozen=True, kw_only=True)
class GpuFacts:
    """One GPU as the driver tells it, and what became of a container that was given it."""

    uuid: str
    model: str
    trouble: str = ""
    # Empty where it started; None where nobody tried.
    start_error: str | None = None


@dataclass(frozen=True, kw_only=True)
class DriverFacts:
    """The driver's two halves, and its GPUs; simulated ones have no driver."""

    error: str = ""
    simulated: bool = False
    library_version: str = ""
    kernel_version: str = ""
    gpus: tuple[GpuFacts, ...] = ()
    # Of those that it counts and that don't answer, in words.
    silent: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class NetworkFacts:
    """What jobs may reach, and whether the machine can hold them to it."""

    # None where nobody tried.
    error: str | None = None
    promised: str = "none"
    missing_programs: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class MarketFacts:
    """What is known of this machine's place in the market."""

    enrolled: bool = True
    address: str = ""
    error: str = ""
    state: str = ""
    reason: str = ""
    certificate_hours: int | None = None
    # So near its end that the agent should have renewed it long ago.
    certificate_is_late: bool = False
    # By this machine's clock it has not begun.
    certificate_is_early: bool = False


@dataclass(frozen=True, kw_only=True)
class MachineFacts:
    """The rest of it."""

    settings_error: str = ""
    priced: bool = True
    is_root: bool = True
    clock_synchronized: bool | None = None
    state_dir: str = ""
    state_free_bytes: int | None = None
    state_filesystem: str = ""
    state_mode: int | None = None
    state_writable: bool = True


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything that was looked at. Without an engine, jobs run as processes."""

    machine: MachineFacts
    market: MarketFacts
    driver: DriverFacts
    engine: EngineFacts | None = None
    toolkit: ToolkitFacts = field(default_factory=ToolkitFacts)
    network: NetworkFacts = field(default_factory=NetworkFacts)
