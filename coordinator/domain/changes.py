"""What a buyer could change in an order: each kind a row of one table, with its price and its sentence.

The price of a change is in parts per million of the job: money that is added, or the part of what was asked
for that is given up. Giving up a choice (a region, a label, …) has a fixed price.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from coordinator.domain.host import Isolation, Network
from coordinator.domain.job import BUDGET_MICRO_MAX, GpuRequest, HostRequest, JobSpec
from coordinator.domain.limits import budget_needed, capability, run_ms_now
from coordinator.domain.row import Limit
from coordinator.domain.shelf import Request, Shelf
from coordinator.domain.words import (
    amount,
    duration,
    duration_told,
    percent,
    plural,
    processors,
    size,
    size_told,
)

_PPM = 1_000_000
_REGION_PPM = 100_000
_VERSION_PPM = 150_000
_LABEL_PPM = 150_000
_ISOLATION_PPM = 200_000
_NETWORK_PPM = 300_000
_MODEL_PPM = 500_000
# What they run is nothing but a trial.
_SIMULATED_PPM = 900_000
# A part of reliability given up weighs as several of anything else.
_RELIABILITY_WEIGHT = 4
# The least that an order can ask for.
_MEMORY_BYTES_MIN = 16 << 20
_CPU_MILLI_MIN = 100


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A change of one thing. It can help where all limits that a shelf fails are among those it mends.

    `price_ppm` is None where it can't help; `changed` and `words` are only asked where it can.
    """

    mends: frozenset[Limit]
    price_ppm: Callable[[Request, Shelf], int | None]
    changed: Callable[[Request, Shelf], JobSpec]
    words: Callable[[JobSpec, JobSpec], str]


def _part(before: int, after: int) -> int:
    return abs(after - before) * _PPM // before if before else _PPM


def _gpus(spec: JobSpec, change: Callable[[GpuRequest], GpuRequest]) -> JobSpec:
    return replace(spec, gpus=change(spec.gpus))


def _host(spec: JobSpec, change: Callable[[HostRequest], HostRequest]) -> JobSpec:
    return replace(spec, host=change(spec.host))


def _count(request: Request, shelf: Shelf) -> int:
    """How many fewer GPUs would be had now; 0 for none."""
    ask = request.ask
    return min(
        len(shelf.suiting(ask, shelf.free)), ask.price_borne * ask.gpu_count // shelf.price, ask.gpu_count - 1
    )


def _vram(request: Request, shelf: Shelf) -> int:
    """The memory that enough of the free GPUs have."""
    free, count = shelf.free, request.ask.gpu_count
    return size_told(free[-count].vram_bytes) if len(free) >= count else 0


def _memory(_request: Request, shelf: Shelf) -> int:
    return size_told(shelf.machine.memory_bytes_free)


def _less(wanted: int, had: int, least: int) -> int | None:
    return _part(wanted, had) if least <= had < wanted else None


def _run_ms(shelf: Shelf) -> int:
    return run_ms_now(shelf) if shelf.machine.hours else duration_told(shelf.machine.run_ms_max)


def _labels_had(request: Request, shelf: Shelf) -> dict[str, str]:
    return dict(sorted(request.ask.labels & shelf.machine.labels))


def _region_words(before: JobSpec, after: JobSpec) -> str:
    more = set(after.host.regions) - set(before.host.regions)
    return f"accept region {more.pop()} too (--region)" if more else "accept any region (without --region)"


def _version_words(what: str, option: str, before: str, after: str) -> str:
    if after:
        return f"accept {what} {after} instead of {before} ({option} {after})"
    return f"accept any {what} (without {option})"


KINDS: tuple[Kind, ...] = (
    Kind(
        mends=frozenset({Limit.PRICE}),
        price_ppm=lambda request, shelf: _part(request.ask.price_cap, shelf.price),
        changed=lambda request, shelf: replace(request.spec, gpu_hour_price_micro_max=shelf.price),
        words=lambda _, after: f"raise --max-price to {amount(after.gpu_hour_price_micro_max)}",
    ),
    Kind(
        mends=frozenset({Limit.BUDGET}),
        price_ppm=lambda request, shelf: (
            _part(request.spec.budget_micro, request.spec.budget_micro + needed)
            if (needed := budget_needed(request, shelf)) + request.spec.budget_micro <= BUDGET_MICRO_MAX
            else None
        ),
        changed=lambda request, shelf: replace(
            request.spec, budget_micro=request.spec.budget_micro + budget_needed(request, shelf)
        ),
        words=lambda _, after: f"raise --budget to {amount(after.budget_micro)}",
    ),
    Kind(
        mends=frozenset({Limit.COUNT, Limit.BUSY, Limit.BUDGET}),
        price_ppm=lambda request, shelf: _less(request.ask.gpu_count, _count(request, shelf), 1),
        changed=lambda request, shelf: _gpus(
            request.spec, lambda gpus: replace(gpus, count=_count(request, shelf))
        ),
        words=lambda before, after: (
            f"ask for {plural(after.gpus.count, 'GPU')} instead of {before.gpus.count}"
        ),
    ),
    Kind(
        mends=frozenset({Limit.VRAM, Limit.COUNT, Limit.BUSY}),
        price_ppm=lambda request, shelf: _less(request.ask.vram_bytes, _vram(request, shelf), 1),
        changed=lambda request, shelf: _gpus(
            request.spec, lambda gpus: replace(gpus, vram_bytes_min=_vram(request, shelf))
        ),
        words=lambda before, after: (
            f"ask for {size(after.gpus.vram_bytes_min)} of GPU memory instead of "
            f"{size(before.gpus.vram_bytes_min)} (--vram {size(after.gpus.vram_bytes_min)})"
        ),
    ),
    Kind(
        mends=frozenset({Limit.COMPUTE_CAPABILITY}),
        price_ppm=lambda _, shelf: _VERSION_PPM if shelf.alike else None,
        changed=lambda request, shelf: _gpus(
            request.spec, lambda gpus: replace(gpus, compute_capability_min=capability(shelf))
        ),
        words=lambda before, after: _version_words(
            "compute capability",
            "--cc",
            before.gpus.compute_capability_min,
            after.gpus.compute_capability_min,
        ),
    ),
    Kind(
        mends=frozenset({Limit.MODEL}),
        price_ppm=lambda _request, _shelf: _MODEL_PPM,
        changed=lambda request, shelf: _gpus(request.spec, lambda gpus: replace(gpus, model=shelf.model)),
        words=lambda before, after: f"take a {after.gpus.model} instead of a {before.gpus.model}",
    ),
    Kind(
        mends=frozenset({Limit.ISOLATION}),
        price_ppm=lambda request, shelf: _ISOLATION_PPM if shelf.machine.trusts(request.ask) else None,
        changed=lambda request, _: replace(request.spec, isolation_min=Isolation.PROCESS),
        words=lambda _before, _after: (
            "accept isolation 'process' (--isolation process), on a host whose seller trusts you"
        ),
    ),
    Kind(
        mends=frozenset({Limit.SIMULATED}),
        price_ppm=lambda _request, _shelf: _SIMULATED_PPM,
        changed=lambda request, _: _gpus(request.spec, lambda gpus: replace(gpus, simulated=True)),
        words=lambda _before, _after: "accept simulated GPUs, which do not exist (--simulated)",
    ),
    Kind(
        mends=frozenset({Limit.NETWORK}),
        price_ppm=lambda _request, _shelf: _NETWORK_PPM,
        changed=lambda request, _: replace(request.spec, network=Network.NONE, network_destinations=()),
        words=lambda _before, _after: "do without the network (without --network and --reach)",
    ),
    Kind(
        mends=frozenset({Limit.REGION}),
        price_ppm=lambda _request, _shelf: _REGION_PPM,
        changed=lambda request, shelf: _host(
            request.spec,
            lambda host: replace(
                host, regions=(*host.regions, shelf.machine.region) if shelf.machine.region else ()
            ),
        ),
        words=_region_words,
    ),
    Kind(
        mends=frozenset({Limit.DRIVER}),
        price_ppm=lambda _request, _shelf: _VERSION_PPM,
        changed=lambda request, shelf: _host(
            request.spec,
            lambda host: replace(host, driver_version_min=shelf.machine.host.facts.driver_version),
        ),
        words=lambda before, after: _version_words(
            "driver", "--driver", before.host.driver_version_min, after.host.driver_version_min
        ),
    ),
    Kind(
        mends=frozenset({Limit.CUDA}),
        price_ppm=lambda _request, _shelf: _VERSION_PPM,
        changed=lambda request, shelf: _host(
            request.spec, lambda host: replace(host, cuda_version_min=shelf.machine.host.facts.cuda_version)
        ),
        words=lambda before, after: _version_words(
            "CUDA", "--cuda", before.host.cuda_version_min, after.host.cuda_version_min
        ),
    ),
    Kind(
        mends=frozenset({Limit.LABELS}),
        price_ppm=lambda request, shelf: _LABEL_PPM * len(request.ask.labels - shelf.machine.labels),
        changed=lambda request, shelf: _host(
            request.spec, lambda host: replace(host, labels=_labels_had(request, shelf))
        ),
        words=lambda before, after: (
            "do without "
            + ", ".join(
                f"--host-label {name}={value}"
                for name, value in sorted(before.host.labels.items())
                if name not in after.host.labels
            )
        ),
    ),
    Kind(
        mends=frozenset({Limit.RELIABILITY}),
        price_ppm=lambda request, shelf: (
            _RELIABILITY_WEIGHT * _part(request.ask.reliability_ppm, shelf.machine.reliability_ppm)
        ),
        changed=lambda request, shelf: _host(
            request.spec, lambda host: replace(host, reliability_ppm_min=shelf.machine.reliability_ppm)
        ),
        words=lambda before, after: (
            f"set --reliability to {percent(after.host.reliability_ppm_min)} "
            f"(now {percent(before.host.reliability_ppm_min)})"
        ),
    ),
    Kind(
        mends=frozenset({Limit.MEMORY, Limit.BUSY}),
        price_ppm=lambda request, shelf: _less(
            request.ask.memory_bytes, _memory(request, shelf), _MEMORY_BYTES_MIN
        ),
        changed=lambda request, shelf: replace(request.spec, memory_bytes=_memory(request, shelf)),
        words=lambda before, after: (
            f"ask for {size(after.memory_bytes)} of memory instead of {size(before.memory_bytes)} "
            f"(--memory {size(after.memory_bytes)})"
        ),
    ),
    Kind(
        mends=frozenset({Limit.CPU, Limit.BUSY}),
        price_ppm=lambda request, shelf: _less(
            request.ask.cpu_milli, shelf.machine.cpu_milli_free, _CPU_MILLI_MIN
        ),
        changed=lambda request, shelf: replace(request.spec, cpu_milli=shelf.machine.cpu_milli_free),
        words=lambda before, after: (
            f"ask for {processors(after.cpu_milli)} processors instead of {processors(before.cpu_milli)} "
            f"(--cpu {processors(after.cpu_milli)})"
        ),
    ),
    Kind(
        mends=frozenset({Limit.RUN_TIME, Limit.HOURS}),
        price_ppm=lambda request, shelf: _less(request.ask.run_ms, _run_ms(shelf), 1_000),
        changed=lambda request, shelf: replace(request.spec, run_ms_max=_run_ms(shelf)),
        words=lambda before, after: (
            f"set --max-time to {duration(after.run_ms_max)} (now {duration(before.run_ms_max)})"
        ),
    ),
)
