"""What a host that comes back has to say again: nothing new, mostly, and then only that is noted."""

from dataclasses import replace

import pytest

from coordinator.domain.claim import GpuOwner
from coordinator.domain.host import HostState
from coordinator.services.gathered import Hello, says_nothing_new
from tests.support.values import at, gpu, room

HOST = room("host_1", gpu("GPU-1"), gpu("GPU-2")).host
FREE = HOST.facts.disk_free_bytes


def owner(host_id: str = "host_1") -> GpuOwner:
    return GpuOwner(
        host_id=host_id,
        account_id="acct_seller",
        link=HostState.ONLINE,
        link_since_ms=0,
        absent_since_ms=None,
        in_use=False,
    )


OWN = {"GPU-1": owner(), "GPU-2": owner()}


def said(**facts: object) -> Hello:
    return Hello(host_id="host_1", facts=replace(HOST.facts, **facts), terms=HOST.terms, now=at(5))  # type: ignore[arg-type]


@pytest.mark.parametrize("free", [FREE, FREE * 10 // 11, FREE * 11 // 10])
def test_the_same_again_is_nothing_new(free: int) -> None:
    assert says_nothing_new(HOST, said(disk_free_bytes=free), OWN)


@pytest.mark.parametrize(
    ("host", "hello", "owners"),
    [
        (HOST, said(disk_free_bytes=FREE // 2), OWN),
        (HOST, said(disk_free_bytes=0), OWN),
        (HOST, said(hostname="other"), OWN),
        (HOST, said(gpus=HOST.facts.gpus[:1]), OWN),
        (HOST, replace(said(), terms=replace(HOST.terms, prices={})), OWN),
        (replace(HOST, link=HostState.SUSPECT), said(), OWN),
        (replace(HOST, link=HostState.LOST), said(), OWN),
        (replace(HOST, revoked_ms=1), said(), OWN),
        (HOST, said(), OWN | {"GPU-2": owner("host_2")}),
        (HOST, said(), {"GPU-1": owner()}),
    ],
    ids=[
        "half its disk", "no disk", "a name", "a GPU less", "prices", "suspect", "lost", "revoked",
        "a GPU of another's", "a GPU that was freed",
    ],
)  # fmt: skip
def test_what_is_news_or_mends_something_is_taken_in(host, hello, owners) -> None:
    assert not says_nothing_new(host, hello, owners)
