"""Bounds of the contract, checked once, at the edge. Inside, values are what they say they are."""

import re
from collections.abc import Mapping, Sequence
from typing import TypeVar
from uuid import UUID

from coordinator.domain.account import Scope, scopes_named
from coordinator.domain.destinations import destination
from coordinator.domain.host import Isolation, Network
from coordinator.domain.job import (
    BUDGET_MICRO_MAX,
    PRIORITY_DEFAULT,
    PRIORITY_MAX,
    RUN_MS_DEFAULT,
    RUN_MS_MAX,
    STOP_GRACE_MS_DEFAULT,
    GpuRequest,
    HostRequest,
    JobSpec,
    OnHostLoss,
    Policy,
)
from coordinator.domain.refusal import Refusal, invalid
from coordinator.services.books import TIME_MS_MAX, Period
from coordinator.services.offers import OfferFilter, OfferOrder
from coordinator.services.reading import BillPlace
from usance.v1 import market_pb2 as m
from usance.v1 import types_pb2 as t

T = TypeVar("T")
PAGE_DEFAULT, PAGE_MAX = 100, 500
_JOB_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ACCOUNT_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_IMAGE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._:/@-]{0,511}")
_NAME = re.compile(r"[a-z0-9_-]{1,64}")
_AFTER = re.compile(r"[0-9]{0,18}", re.ASCII)
_BILL_PLACE = re.compile(r"[0-9]{1,9}\.[0-9]{1,15}", re.ASCII)
_PAGE_START = re.compile(r"[0-9]{0,9}", re.ASCII)
_TOKEN = re.compile(r"[A-Za-z0-9_.-]{0,256}")
_ENV_RESERVED = ("NVIDIA_", "USANCE_")
_VERSION = re.compile(r"([0-9]{1,9}(\.[0-9]{1,9}){0,3})?", re.ASCII)
_LABEL = re.compile(r"[a-z0-9._-]{1,63}")
_POLICIES: dict[int, Policy] = {
    t.POLICY_UNSPECIFIED: Policy.BALANCED,
    t.POLICY_BALANCED: Policy.BALANCED,
    t.POLICY_CHEAPEST: Policy.CHEAPEST,
    t.POLICY_FASTEST_START: Policy.FASTEST_START,
    t.POLICY_MOST_RELIABLE: Policy.MOST_RELIABLE,
}
_ON_HOST_LOSS: dict[int, OnHostLoss] = {
    t.ON_HOST_LOSS_UNSPECIFIED: OnHostLoss.WAIT,
    t.ON_HOST_LOSS_WAIT: OnHostLoss.WAIT,
    t.ON_HOST_LOSS_REPLACE: OnHostLoss.REPLACE,
    t.ON_HOST_LOSS_FAIL: OnHostLoss.FAIL,
}
_NETWORKS: dict[int, Network] = {
    t.NETWORK_UNSPECIFIED: Network.NONE,
    t.NETWORK_NONE: Network.NONE,
    t.NETWORK_ALLOW_LIST: Network.ALLOW_LIST,
    t.NETWORK_INTERNET: Network.INTERNET,
}
_ORDERS: dict[int, OfferOrder] = {
    m.OFFER_ORDER_UNSPECIFIED: OfferOrder.PRICE,
    m.OFFER_ORDER_PRICE: OfferOrder.PRICE,
    m.OFFER_ORDER_RELIABILITY: OfferOrder.RELIABILITY,
    m.OFFER_ORDER_VRAM: OfferOrder.VRAM,
    m.OFFER_ORDER_COUNT: OfferOrder.COUNT,
}
LABELS_MAX = 32
SCOPES_MAX = 16
NOTE_BYTES_MAX = 2_048
DESTINATIONS_MAX = 64
KIB_64 = 65_536
TIB_16 = 16 << 40


def request_id(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        raise invalid("request_id", "a UUID made by the caller, such as uuidgen prints") from None


def page_size(size: int) -> int:
    return whole("page_size", size, 0, PAGE_MAX) or PAGE_DEFAULT


def page_token(text: str) -> str:
    if not _TOKEN.fullmatch(text):
        raise wrong_page()
    return text


def page_start(text: str) -> int:
    """A page token that is a place in a list."""
    if not _PAGE_START.fullmatch(text):
        raise wrong_page()
    return int(text or 0)


def after(text: str) -> int:
    """A page token that is the number of what came last."""
    if not _AFTER.fullmatch(text):
        raise wrong_page()
    return int(text or 0)


def wrong_page() -> Refusal:
    return invalid("page_token", "what next_page_token of the answer before said")


def period(since_ms: int, until_ms: int) -> Period:
    """Zeros stand for the beginning and the end of all time."""
    since = whole("since_ms", since_ms, 0, TIME_MS_MAX)
    return Period(since_ms=since, until_ms=whole("until_ms", until_ms, 0, TIME_MS_MAX) or TIME_MS_MAX)


def bill_place(text: str) -> BillPlace:
    """A page token that is a line of a bill."""
    if not text:
        return BillPlace()
    if not _BILL_PLACE.fullmatch(text):
        raise wrong_page()
    epoch, number = text.split(".")
    return BillPlace(epoch=int(epoch), number=int(number))


def name(field: str, text: str) -> str:
    """The id of something of ours."""
    if not _NAME.fullmatch(text):
        raise invalid(field, "an id: 1 to 64 of a-z, 0-9, dash and underscore")
    return text


def account_name(field: str, text: str) -> str:
    if not _ACCOUNT_NAME.fullmatch(text):
        raise invalid(field, "1 to 64 of a-z, 0-9 and dashes, the first not a dash")
    return text


def scopes(names: Sequence[str]) -> frozenset[Scope]:
    """None where none are named."""
    if len(names) > SCOPES_MAX:
        raise invalid("scopes", f"at most {SCOPES_MAX}")
    found = frozenset[Scope]()
    for name_ in names:
        if not (meant := scopes_named(name_)):
            raise invalid("scopes", f"of {', '.join(Scope)}, or both of a kind, like jobs:*")
        found |= meant
    return found


def line(field: str, value: str, bytes_max: int, *, empty: bool = True) -> str:
    """One line of text for people."""
    if not value and not empty:
        raise invalid(field, "must not be empty")
    if len(value.encode()) > bytes_max or not value.isprintable():
        raise invalid(field, f"at most {bytes_max} bytes of printable text")
    return value


def whole(field: str, value: int, least: int, most: int) -> int:
    if not least <= value <= most:
        raise invalid(field, f"between {least} and {most}, not {value}")
    return value


def amount(field: str, value: int) -> int:
    return whole(field, value, 1, BUDGET_MICRO_MAX)


def isolation(field: str, value: int, default: Isolation) -> Isolation:
    if value == t.ISOLATION_UNSPECIFIED:
        return default
    try:
        return Isolation(value)
    except ValueError:
        raise invalid(field, "ISOLATION_PROCESS or ISOLATION_CONTAINER") from None


def gpu_request(field: str, message: t.GpuRequest, count_min: int = 1) -> GpuRequest:
    return GpuRequest(
        count=whole(f"{field}.count", message.count, count_min, 64),
        model=line(f"{field}.model", message.model, 128),
        vram_bytes_min=whole(f"{field}.vram_bytes_min", message.vram_bytes_min, 0, TIB_16),
        compute_capability_min=version(f"{field}.compute_capability_min", message.compute_capability_min),
        simulated=message.simulated,
    )


def version(field: str, text: str) -> str:
    if not _VERSION.fullmatch(text):
        raise invalid(field, "digits and dots, such as 550.54")
    return text


def labels(field: str, items: Mapping[str, str]) -> dict[str, str]:
    if len(items) > LABELS_MAX:
        raise invalid(field, f"at most {LABELS_MAX} labels")
    for label, value in items.items():
        if not _LABEL.fullmatch(label):
            raise invalid(field, f"names of 1 to 63 of a-z, 0-9, dot, underscore, dash, not {label[:64]!r}")
        line(field, value, 128)
    return dict(items)


def host_request(field: str, message: t.HostRequest) -> HostRequest:
    if len(message.regions) > LABELS_MAX:
        raise invalid(f"{field}.regions", f"at most {LABELS_MAX} regions")
    return HostRequest(
        driver_version_min=version(f"{field}.driver_version_min", message.driver_version_min),
        cuda_version_min=version(f"{field}.cuda_version_min", message.cuda_version_min),
        regions=tuple(line(f"{field}.regions", region, 64, empty=False) for region in message.regions),
        reliability_ppm_min=whole(f"{field}.reliability_ppm_min", message.reliability_ppm_min, 0, 1_000_000),
        labels=labels(f"{field}.labels", message.labels),
    )


def offer_filter(request: m.ListOffersRequest) -> OfferFilter:
    return OfferFilter(
        gpus=gpu_request("gpus", request.gpus, count_min=0),
        host=host_request("host", request.host),
        isolation_min=isolation("isolation_min", request.isolation_min, Isolation.PROCESS),
        gpu_hour_price_micro_max=whole(
            "gpu_hour_price_micro_max", request.gpu_hour_price_micro_max, 0, BUDGET_MICRO_MAX
        ),
        order=choice("order", request.order, _ORDERS),
        network_min=network("network_min", request.network_min),
        image=_image_asked(request.image),
        run_ms=whole("run_ms", request.run_ms, 0, RUN_MS_MAX),
    )


def _image_asked(text: str) -> str:
    if text and not _IMAGE.fullmatch(text):
        raise invalid("image", "an image reference of at most 512 characters, or nothing")
    return text


def choice(field: str, value: int, table: Mapping[int, T]) -> T:
    """A choice that we do not know is not ours to guess."""
    if value not in table:
        raise invalid(field, "one of the choices of the contract that this coordinator speaks")
    return table[value]


def note(field: str, text: str) -> str:
    if len(text.encode()) > NOTE_BYTES_MAX or not all(c.isprintable() or c == "\n" for c in text):
        raise invalid(field, f"at most {NOTE_BYTES_MAX} bytes of printable text and line feeds")
    return text


def spec(message: t.JobSpec) -> JobSpec:
    if not _JOB_NAME.fullmatch(message.name):
        raise invalid("spec.name", "1 to 64 of A-Z, a-z, 0-9, dot, underscore and dash")
    least = isolation("spec.isolation_min", message.isolation_min, Isolation.CONTAINER)
    run_ms = message.run_ms_max or RUN_MS_DEFAULT
    grace_ms = message.stop_grace_ms if message.HasField("stop_grace_ms") else STOP_GRACE_MS_DEFAULT
    most = network("spec.network", message.network)
    return JobSpec(
        name=message.name,
        image=_image(message.image, least),
        command=_command(message.command),
        env=_env(message.env),
        gpus=gpu_request("spec.gpus", message.gpus),
        isolation_min=least,
        gpu_hour_price_micro_max=whole(
            "spec.gpu_hour_price_micro_max", message.gpu_hour_price_micro_max, 0, BUDGET_MICRO_MAX
        ),
        budget_micro=amount("spec.budget_micro", message.budget_micro),
        run_ms_max=whole("spec.run_ms_max", run_ms, 1_000, RUN_MS_MAX),
        stop_grace_ms=whole("spec.stop_grace_ms", grace_ms, 0, 300_000),
        retries_max=whole("spec.retries_max", message.retries_max, 0, 10),
        queue_ms_max=whole("spec.queue_ms_max", message.queue_ms_max, 0, RUN_MS_MAX),
        memory_bytes=_zero_or("spec.memory_bytes", message.memory_bytes, 16 << 20, TIB_16),
        host=host_request("spec.host", message.host),
        policy=choice("spec.policy", message.policy, _POLICIES),
        priority=whole("spec.priority", message.priority, 0, PRIORITY_MAX) or PRIORITY_DEFAULT,
        on_host_loss=choice("spec.on_host_loss", message.on_host_loss, _ON_HOST_LOSS),
        labels=labels("spec.labels", message.labels),
        note=note("spec.note", message.note),
        cpu_milli=_zero_or("spec.cpu_milli", message.cpu_milli, 100, 1_024_000),
        network=most,
        network_destinations=destinations("spec.network_destinations", message.network_destinations, most),
    )


def network(field: str, value: int) -> Network:
    return choice(field, value, _NETWORKS)


def destinations(field: str, items: Sequence[str], most: Network) -> tuple[str, ...]:
    if bool(items) is not (most is Network.ALLOW_LIST):
        raise invalid(field, "at least one with NETWORK_ALLOW_LIST, and none without it")
    if len(items) > DESTINATIONS_MAX:
        raise invalid(field, f"at most {DESTINATIONS_MAX}")
    for item in items:
        if destination(item) is None:
            raise invalid(
                field,
                f"host names or IPv4 networks, perhaps with a port, not {item[:64]!r}",
            )
    return tuple(items)


def _zero_or(field: str, value: int, least: int, most: int) -> int:
    return whole(field, value, least, most) if value else 0


def _image(text: str, least: Isolation) -> str:
    if not text and least is Isolation.PROCESS:
        return text
    if not _IMAGE.fullmatch(text):
        raise invalid("spec.image", "an image reference of at most 512 characters, such as python:3.12")
    return text


def _command(items: Sequence[str]) -> tuple[str, ...]:
    if not 1 <= len(items) <= 256 or not items[0]:
        raise invalid("spec.command", "a program and its arguments, 1 to 256 items")
    if sum(len(item.encode()) for item in items) > KIB_64 or any("\0" in item for item in items):
        raise invalid("spec.command", "at most 64 KiB in all, without NUL")
    return tuple(items)


def _env(items: Mapping[str, str]) -> dict[str, str]:
    if len(items) > 128:
        raise invalid("spec.env", "at most 128 names")
    for name, value in items.items():
        if not _ENV_NAME.fullmatch(name):
            raise invalid("spec.env", f"names of letters, digits and underscores, not {name[:64]!r}")
        if name.startswith(_ENV_RESERVED):
            raise invalid("spec.env", f"names that begin with NVIDIA_ or USANCE_ are ours: {name}")
        if "\0" in value:
            raise invalid("spec.env", f"values without NUL: {name}")
    if sum(len(name) + len(value.encode()) for name, value in items.items()) > KIB_64:
        raise invalid("spec.env", "at most 64 KiB in all")
    return dict(items)
