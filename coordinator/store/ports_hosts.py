"""What the services may ask of the store about hosts and their GPUs: a part of `coordinator.store.ports`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

from coordinator.domain.claim import GpuClaim, GpuOwner, Strike
from coordinator.domain.host import Certificate, Hold, Host, HostFacts, HostRoom, HostState, Terms
from coordinator.domain.metering import Stamp

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Page(Generic[T]):
    """Some rows in the order of their ids, up to `last`; "": there are no more."""

    rows: Sequence[T]
    # Ids of rows that nothing can be made of, and why: their others must not wait for them.
    broken: Mapping[str, str]
    last: str


class Seen(NamedTuple):
    """A host that is not LOST, and when it was last heard, as far as that was written down.

    A tuple, and no more: thousands are looked at each second, on a thread that the beats wait for.
    """

    host_id: str
    link: HostState
    boot_id: str
    boot_ms: int
    wall_ms: int
    is_revoked: bool
    # By its seller, whoever else holds it back.
    is_wanted_back: bool

    @property
    def at(self) -> Stamp:
        return Stamp(boot_id=self.boot_id, boot_ms=self.boot_ms, wall_ms=self.wall_ms)


class Hosts(Protocol):
    def insert_enrolment_token(self, digest: bytes, account_id: str, expires_ms: int) -> None: ...

    def use_enrolment_token(self, digest: bytes, key_digest: bytes, host_id: str, now_ms: int) -> str | None:
        """The host that this token and key stand for, `host_id` if it is new; None: refused."""
        ...

    def insert_host(self, host_id: str, enrolment_digest: bytes, stamp: Stamp) -> None: ...

    def host(self, host_id: str) -> Host | None: ...

    def hosts(self, host_ids: Sequence[str]) -> Mapping[str, Host]: ...

    def hosts_refused(self, host_ids: Sequence[str]) -> Mapping[str, bool]:
        """Of those that are known: are they revoked?"""
        ...

    def host_ids_of(self, account_id: str, after_id: str, limit: int) -> Sequence[str]:
        """Oldest first."""
        ...

    def hosts_after(self, host_id: str, limit: int) -> Page[Host]: ...

    def rooms(self) -> Sequence[HostRoom]:
        """Every host with what of it is free."""
        ...

    def rooms_of(self, host_ids: Sequence[str]) -> Sequence[HostRoom]:
        """The same of some, by their ids."""
        ...

    def save_hello(self, host_id: str, facts: HostFacts, terms: Terms) -> Sequence[str]:
        """GPUs of nobody's are the host's from now on; answers which are another's."""
        ...

    def save_seen(self, host_id: str, stamp: Stamp) -> None: ...

    def save_all_seen(self, seen: Mapping[str, Stamp]) -> Sequence[str]:
        """Which of them are not ONLINE, or are to be refused."""
        ...

    def save_link(self, host_id: str, before: HostState, after: HostState, reason: str, now_ms: int) -> bool:
        """Whether it is heard."""
        ...

    def save_hold(self, host_id: str, hold: Hold, reason: str, now_ms: int) -> None:
        """A quarantine leaves beneath it what its seller had wished."""
        ...

    def lift_quarantine(self, host_id: str, reason: str, now_ms: int) -> None:
        """What its seller had wished holds again, since when it did; nothing, if there is no quarantine."""
        ...

    def revoke_host(self, host_id: str, now_ms: int) -> None:
        """It is to be refused for ever."""
        ...

    def insert_certificate(self, host_id: str, certificate: Certificate, now_ms: int) -> None: ...

    def hosts_certified_only_by_others(self, authority_digest: bytes, now_ms: int) -> Sequence[str]:
        """Those not refused that may have a good certificate, but none of this authority."""
        ...

    def save_reliability(self, host_id: str, ppm: int) -> None: ...

    def draining(self, host_ids: Sequence[str]) -> Page[tuple[Host, int]]:
        """Those of these hosts whose sellers want them back, and since when."""
        ...

    def hosts_seen(self, after_id: str, limit: int) -> Sequence[Seen]: ...

    def host_seen(self, host_id: str) -> Seen | None: ...


class Claims(Protocol):
    def own_gpus(self, host_id: str, gpu_uuids: Sequence[str]) -> Sequence[str]:
        """GPUs of nobody's are the host's from now on; answers which are another's."""
        ...

    def gpu_owners(self, gpu_uuids: Sequence[str]) -> dict[str, GpuOwner]: ...

    def move_gpu(self, gpu_uuid: str, before_host_id: str, after_host_id: str) -> bool:
        """From one host to another, whose claim to it is settled by that. False: somebody else was faster."""
        ...

    def free_gpu(self, gpu_uuid: str) -> None:
        """It belongs to nobody until a host names it. Nobody else may claim it now."""
        ...

    def save_named(self, host_id: str, gpu_uuids: Sequence[str], now_ms: int) -> None:
        """These the host names now, and no others: what it has and does not name is absent from now on."""
        ...

    def insert_claims(self, host_id: str, gpu_uuids: Sequence[str], now_ms: int) -> Sequence[str]:
        """Which of them the host had not claimed yet."""
        ...

    def claims(self, limit: int) -> Sequence[GpuClaim]:
        """GPUs that a host names and another has, oldest first."""
        ...

    def claims_about(self, host_ids: Sequence[str]) -> Sequence[GpuClaim]:
        """Those by or against these hosts."""
        ...

    def claims_to(self, gpu_uuid: str) -> Sequence[GpuClaim]:
        """Oldest first."""
        ...

    def insert_strike(
        self, host_id: str, kind: Strike, subject: str, detail: str, now_ms: int, run_ms: int | None = None
    ) -> bool:
        """False: it was told before, or the host has told so many that no more are kept."""
        ...

    def strikes_of(self, host_ids: Sequence[str], since_ms: int) -> dict[str, int]:
        """What counts against each of these hosts: since then, and since it was last forgiven."""
        ...
