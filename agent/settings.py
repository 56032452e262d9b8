"""The agent's settings: one TOML file, checked whole, and flags that win over it."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from agent.domain.attempt import Network
from agent.domain.host import ANY_MODEL
from agent.domain.hours import WINDOWS_MAX, SaleWindow, parse_hours
from agent.domain.network import POOL, REFUSED, SUBNET_PREFIX, NetworkPolicy, destination_of, is_public
from runtime.table import Table, lines_of, placed

DEFAULT_PATH = Path("/etc/usance/agent.toml")
PRICE_MICRO_MAX = 1_000_000_000_000
MICRO = 1_000_000
GIB = 1 << 30
MEGA = 1_000_000
MBPS_MAX = 10_000_000
LABELS_MAX = 32
LABEL_BYTES_MAX = 128
_LABEL_NAME = re.compile(r"[a-z0-9._-]{1,63}")

EXAMPLE = """\
# Settings of usance-agent. Everything may be left out; what stands here is what holds then.

# Where the agent keeps its identity, journals and running jobs.
state_dir = "/var/lib/usance"

# What runs jobs: "docker" (hardened containers) or "process" (child processes, NO isolation).
executor = "docker"
docker_host = "unix:///var/run/docker.sock"

# "process" gives jobs your own rights on this machine. It must be allowed in so many words.
allow_process_executor = false

# Accounts that may run without isolation here, beside your own.
trusted_accounts = []

# Shown to buyers; small letters, digits and "-".
region = ""

# The longest job you take, in seconds; 0 for no limit.
run_seconds_max = 0

# How long a job may still run when you take this machine back (usance reclaim), in seconds; 0 to 86400.
# Buyers see it, and may prefer hosts that give more notice.
reclaim_notice_seconds = 0

# When jobs may run, in this machine's own time; none for always. A job is only taken if its time limit ends
# within them; one that runs already is never ended for them.
hours = []  # ["mon-fri 22:00-06:00", "sat,sun 00:00-24:00"]

# Which images jobs may run: patterns in which "*" stands for anything. With none allowed, all are that are
# not denied. One without a tag means every tag.
images_allowed = []  # ["pytorch/*", "registry.example.org/*"]
images_denied = []

# What your line carries, to this machine and from it, as far as you know; 0 where you don't. Buyers are told
# that you say so.
download_mbps = 0
upload_mbps = 0

# Which GPUs are for sale, by UUID (nvidia-smi -L); none named for all. One that others use, be it yourself,
# is not sold meanwhile in any case.
gpus = []  # ["GPU-8c9a2a3e-…"]

# The most power that each GPU for sale may draw, in watts; 0 for what the driver has. It takes root's rights,
# and holds from the agent's start until the driver is loaded again.
power_cap_watts = 0

# Where Prometheus finds figures of this machine, its GPUs and jobs, "127.0.0.1:9464"; "" for nowhere. Whoever
# reaches the address may read them.
metrics_listen = ""

# Where traces are sent, such as "http://127.0.0.1:4317"; it takes usance[otel]. "" for nowhere.
traces = ""

# How often usage is recorded, in seconds; 1 to 60.
record_seconds = 10

# How much output of a job may wait for the coordinator; then the job waits too.
output_waiting_mib = 64

# The most output of one job that is kept and passed on; 0 for all. A job that writes more goes on; its log
# says where the limit was reached.
output_mib_max = 0

# Room for a job's files: /workspace and /tmp, in memory, part of the job's memory.
workspace_mib = 1024
tmp_mib = 256

# Of the disk where the engine keeps its images, what always stays free; and the largest image, unpacked, that
# you take. Images that were fetched for jobs and are used least go first when there is no room.
disk_reserve_gb = 10
image_gb_max = 100

# May a job name an image that only this machine has? Those may be yours, and not meant for strangers.
local_images = false

# Processes and threads of one job.
pids_max = 4096

# What of the network a job may reach: "none", "allow_list" (what stands in network_destinations, and of that
# what the job asks for) or "internet". Never this machine, your own network, or another job. It takes root's
# rights, and the programs iptables and ip.
network = "none"
network_destinations = []

# Jobs with a network have bridges from here; it must be no network of yours, and at least a /28.
network_pool = "10.213.0.0/16"

# Whom jobs ask for names: public addresses, because jobs can't reach the name server of your own network.
dns_servers = ["1.1.1.1", "9.9.9.9"]

# Your own words about this machine, by which buyers can ask for it (--host-label rack=b7).
[labels]
# rack = "b7"

# What one GPU costs for one hour, in credits, in quotes. "*" is for every model not named here; a GPU
# without a price is not for sale.
[prices]
# "NVIDIA GeForce RTX 4090" = "0.45"

# GPUs that do not exist, for trying things out. They say SIMULATED wherever they appear.
[simulated_gpus]
count = 0
model = "SIMULATED GPU"
vram_gib = 24
"""


class SettingsError(ValueError):
    """The settings are wrong. The message lists everything that is."""


class ExecutorKind(StrEnum):
    """What runs jobs."""

    DOCKER = "docker"
    PROCESS = "process"


@dataclass(frozen=True, kw_only=True)
class SimulatedSettings:
    """GPUs that do not exist."""

    count: int = 0
    model: str = "SIMULATED GPU"
    vram_gib: int = 24


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything a seller decides. EXAMPLE says what each is for."""

    state_dir: Path = Path("/var/lib/usance")
    executor: ExecutorKind = ExecutorKind.DOCKER
    docker_host: str = "unix:///var/run/docker.sock"
    allow_process_executor: bool = False
    trusted_accounts: tuple[str, ...] = ()
    region: str = ""
    run_seconds_max: int = 0
    reclaim_notice_seconds: int = 0
    # In local time.
    hours: tuple[SaleWindow, ...] = ()
    images_allowed: tuple[str, ...] = ()
    images_denied: tuple[str, ...] = ()
    download_mbps: int = 0
    upload_mbps: int = 0
    record_seconds: int = 10
    # UUIDs; none for all.
    gpus: tuple[str, ...] = ()
    power_cap_watts: int = 0
    # Where figures are served; None for nowhere.
    metrics_listen: tuple[str, int] | None = None
    traces: str = ""
    output_waiting_mib: int = 64
    output_mib_max: int = 0
    workspace_mib: int = 1024
    tmp_mib: int = 256
    pids_max: int = 4096
    disk_reserve_gb: int = 10
    image_gb_max: int = 100
    local_images: bool = False
    network: Network = Network.NONE
    network_destinations: tuple[str, ...] = ()
    network_pool: IPv4Network = POOL
    dns_servers: tuple[str, ...] = NetworkPolicy().dns
    labels: Mapping[str, str] = field(default_factory=dict)
    prices_micro: Mapping[str, int] = field(default_factory=dict)
    simulated_gpus: SimulatedSettings = SimulatedSettings()


def parse(text: str) -> Settings:
    """Raises SettingsError with every fault, not only the first."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"not TOML: {error}") from error
    faults: list[str] = []
    top = Table("", values, faults)
    default = Settings()
    simulated = Table("simulated_gpus.", top.table("simulated_gpus"), faults)
    settings = Settings(
        state_dir=Path(top.text("state_dir", str(default.state_dir), r"/.+", "an absolute path")),
        executor=ExecutorKind(
            top.text("executor", default.executor, "docker|process", '"docker" or "process"')
        ),
        docker_host=top.text("docker_host", default.docker_host, r"unix:///.+", 'such as "unix:///…"'),
        allow_process_executor=top.flag("allow_process_executor", default=False),
        trusted_accounts=top.names("trusted_accounts"),
        region=top.text("region", "", r"[a-z0-9-]{0,64}", 'at most 64 of a-z, 0-9 and "-"'),
        run_seconds_max=top.number("run_seconds_max", 0, 0, 2_592_000),
        reclaim_notice_seconds=top.number("reclaim_notice_seconds", 0, 0, 86_400),
        hours=_hours(top.names("hours"), faults),
        images_allowed=top.patterns("images_allowed"),
        images_denied=top.patterns("images_denied"),
        download_mbps=top.number("download_mbps", 0, 0, MBPS_MAX),
        upload_mbps=top.number("upload_mbps", 0, 0, MBPS_MAX),
        record_seconds=top.number("record_seconds", default.record_seconds, 1, 60),
        gpus=top.names("gpus"),
        power_cap_watts=top.number("power_cap_watts", 0, 0, 10_000),
        metrics_listen=top.address("metrics_listen"),
        traces=top.text("traces", "", r"(https?://\S+)?", 'such as "http://127.0.0.1:4317"'),
        output_waiting_mib=top.number("output_waiting_mib", default.output_waiting_mib, 1, 65_536),
        output_mib_max=top.number("output_mib_max", 0, 0, 1 << 24),
        workspace_mib=top.number("workspace_mib", default.workspace_mib, 1, 1 << 24),
        tmp_mib=top.number("tmp_mib", default.tmp_mib, 1, 1 << 24),
        pids_max=top.number("pids_max", default.pids_max, 16, 1 << 22),
        disk_reserve_gb=top.number("disk_reserve_gb", default.disk_reserve_gb, 0, 1_000_000),
        image_gb_max=top.number("image_gb_max", default.image_gb_max, 1, 1_000_000),
        local_images=top.flag("local_images", default=False),
        network=Network(
            top.text("network", default.network, "|".join(Network), f"one of {', '.join(Network)}")
        ),
        network_destinations=_destinations(top),
        network_pool=_pool(top),
        dns_servers=_addresses(top, "dns_servers", default.dns_servers),
        labels=_labels(top.table("labels"), faults),
        prices_micro=_prices(top.table("prices"), faults),
        simulated_gpus=SimulatedSettings(
            count=simulated.number("count", 0, 0, 64),
            model=simulated.text(
                "model",
                SimulatedSettings().model,
                r"SIMULATED[^\x00-\x1f]{1,100}",
                "a name that begins with SIMULATED",
            ),
            vram_gib=simulated.number("vram_gib", SimulatedSettings().vram_gib, 1, 4_096),
        ),
    )
    simulated.leftovers()
    top.leftovers()
    if faults:
        lines = lines_of(text)
        raise SettingsError("\n".join(placed(fault, lines) for fault in faults))
    return settings


def load(path: Path | None) -> Settings:
    """The settings of a file; without one those of the usual place, or the defaults."""
    if path is None:
        if not DEFAULT_PATH.exists():
            return Settings()
        path = DEFAULT_PATH
    try:
        return parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path} can't be read: {error.strerror}") from error
    except (SettingsError, UnicodeDecodeError) as error:
        raise SettingsError("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from error


def check(settings: Settings) -> None:
    """What can be judged only of file and flags together. Raises SettingsError."""
    if settings.executor is ExecutorKind.PROCESS and not settings.allow_process_executor:
        raise SettingsError(
            'executor = "process" gives jobs your own rights on this machine; if you want that, set '
            "allow_process_executor = true (or --allow-process-executor)"
        )
    if not settings.prices_micro:
        raise SettingsError(
            'there is no price, so nothing would be for sale; set [prices] "*" = "0.50" (or --price 0.50)'
        )


def with_price(settings: Settings, price: str) -> Settings:
    """One price for every model."""
    faults: list[str] = []
    prices = _prices({ANY_MODEL: price}, faults)
    if faults:
        raise SettingsError("\n".join(faults))
    return replace(settings, prices_micro=prices)


def _hours(texts: Sequence[str], faults: list[str]) -> tuple[SaleWindow, ...]:
    hours: list[SaleWindow] = []
    for text in texts:
        try:
            hours += parse_hours(text)
        except ValueError as error:
            faults.append(f"hours: {error}")
    if len(hours) > WINDOWS_MAX:
        faults.append(f"hours: there must be at most {WINDOWS_MAX} stretches, not {len(hours)}")
    return tuple(hours)


def _destinations(top: Table) -> tuple[str, ...]:
    texts = top.names("network_destinations")
    for text in texts:
        try:
            destination_of(text)
        except ValueError:
            wanted = (
                'must be host names, addresses or networks, with or without a port, such as "example.org:443"'
            )
            top.fault("network_destinations", f"{wanted}, not {text!r}")
    return texts


def _pool(top: Table) -> IPv4Network:
    text = top.text("network_pool", str(POOL), r"[0-9./]{9,18}", 'a network such as "10.213.0.0/16"')
    try:
        pool = IPv4Network(text)
    except ValueError as error:
        top.fault("network_pool", f"must be a network: {error}")
        return POOL
    if pool.prefixlen > SUBNET_PREFIX or not any(pool.subnet_of(network) for network in REFUSED):
        top.fault("network_pool", f"must be a private network of at least a /{SUBNET_PREFIX}, not {text!r}")
    return pool


def _addresses(top: Table, name: str, default: tuple[str, ...]) -> tuple[str, ...]:
    texts = top.names(name, default)
    for text in texts:
        try:
            good = is_public(IPv4Address(text))
        except ValueError:
            good = False
        if not good:
            top.fault(name, f"must be public IPv4 addresses, not {text!r}")
    return texts


def _labels(values: Mapping[str, object], faults: list[str]) -> dict[str, str]:
    if len(values) > LABELS_MAX:
        faults.append(f"labels: there must be at most {LABELS_MAX}, not {len(values)}")
    labels = {}
    for name, value in values.items():
        if not _LABEL_NAME.fullmatch(name):
            faults.append(f'labels."{name}": a name must be 1 to 63 of a-z, 0-9, ".", "_" and "-"')
        elif not isinstance(value, str) or len(value.encode()) > LABEL_BYTES_MAX or not value.isprintable():
            faults.append(
                f'labels."{name}": must be printable text in quotes, at most {LABEL_BYTES_MAX} bytes, '
                f"not {value!r}"
            )
        else:
            labels[name] = value
    return labels


def _prices(values: Mapping[str, object], faults: list[str]) -> dict[str, int]:
    prices = {}
    for model, value in values.items():
        micro = credits_micro(value)
        if micro is None:
            faults.append(
                f'prices."{model}": must be credits for one GPU-hour in quotes, above 0 and with at most six '
                f'decimals, such as "0.50", not {value!r}'
            )
        else:
            prices[model] = micro
    return prices


def credits_micro(value: object) -> int | None:
    """Money is never a float: a price comes as text, or as a whole number of credits."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    try:
        micro = Decimal(value) * MICRO
    except InvalidOperation:
        return None
    if not micro.is_finite() or micro != micro.to_integral_value() or not 1 <= micro <= PRICE_MICRO_MAX:
        return None
    return int(micro)
