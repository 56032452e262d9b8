"""To whom GPUs belong and what counts against hosts, on SQLite and on PostgreSQL alike."""

import pytest

from coordinator.domain.claim import STRIKES_KEPT_MAX, GpuClaim, Strike
from coordinator.domain.host import HostState, Terms
from coordinator.store.transaction import SqlTransaction
from tests.support.store_fixtures import DIGEST, SELLER
from tests.support.values import at, attempt, gpu, room


@pytest.fixture
def two(market: SqlTransaction) -> SqlTransaction:
    """Another host, which names a GPU of the first's and one of its own."""
    market.insert_host("host_2", DIGEST, at(0))
    facts = room("host_2", gpu("GPU-1"), gpu("GPU-own")).host.facts
    assert market.save_hello("host_2", facts, Terms(prices={})) == ["GPU-1"]
    return market


def test_a_gpu_belongs_to_the_host_that_named_it_first_and_is_free_there_alone(two: SqlTransaction) -> None:
    assert two.own_gpus("host_1", ["GPU-own", "GPU-1"]) == ["GPU-own"]
    assert two.own_gpus("host_1", []) == []
    owners = two.gpu_owners(["GPU-1", "GPU-own", "GPU-none"])
    assert {uuid: owner.host_id for uuid, owner in owners.items()} == {"GPU-1": "host_1", "GPU-own": "host_2"}
    owner = owners["GPU-1"]
    assert (owner.account_id, owner.link, owner.absent_since_ms, owner.in_use) == (
        SELLER,
        HostState.LOST,
        None,
        False,
    )
    assert [g.uuid for r in two.rooms() if r.host.id == "host_2" for g in r.free] == ["GPU-own"]
    two.insert_attempt(attempt())
    assert two.gpu_owners(["GPU-1"])["GPU-1"].in_use


def test_what_a_host_names_no_more_is_absent_until_it_names_it_again(two: SqlTransaction) -> None:
    two.insert_claims("host_2", ["GPU-1"], 3)
    two.save_named("host_2", ["GPU-1"], 5)
    two.save_named("host_2", ["GPU-1"], 7)
    owner = two.gpu_owners(["GPU-own"])["GPU-own"]
    assert owner.absent_since_ms == 5
    assert len(two.claims(9)) == 1
    two.save_named("host_2", ["GPU-own"], 9)
    assert two.gpu_owners(["GPU-own"])["GPU-own"].absent_since_ms is None
    assert two.claims(9) == [], "it claims no longer what it does not name"


def test_claims_are_kept_once_and_shown_to_both_sides(two: SqlTransaction) -> None:
    assert two.insert_claims("host_2", ["GPU-1", "GPU-2"], 5) == ["GPU-1", "GPU-2"]
    assert two.insert_claims("host_2", ["GPU-2", "GPU-3"], 6) == ["GPU-3"]
    assert two.insert_claims("host_2", [], 6) == []
    first = GpuClaim(
        gpu_uuid="GPU-1",
        host_id="host_2",
        account_id=SELLER,
        first_ms=5,
        owner_host_id="host_1",
        owner_account_id=SELLER,
    )
    assert two.claims(1) == [first]
    assert [claim.gpu_uuid for claim in two.claims_about(["host_1"])] == ["GPU-1", "GPU-2", "GPU-3"]
    assert two.claims_about(["host_1"]) == two.claims_about(["host_2"])
    assert two.claims_about(["host_3"]) == []
    assert two.claims_to("GPU-1") == [first]


def test_a_gpu_moves_from_whom_it_was_read_to_be_alone(two: SqlTransaction) -> None:
    two.insert_claims("host_2", ["GPU-1"], 5)
    assert not two.move_gpu("GPU-1", "host_9", "host_2")
    two.insert_claims("host_2", ["GPU-1"], 5)
    assert two.move_gpu("GPU-1", "host_1", "host_2")
    assert two.claims(9) == []
    assert two.gpu_owners(["GPU-1"])["GPU-1"].host_id == "host_2"
    two.free_gpu("GPU-1")
    assert two.gpu_owners(["GPU-1"]) == {}
    assert two.own_gpus("host_1", ["GPU-1"]) == []


def test_a_strike_is_told_once_for_each_thing_and_counts_until_it_is_forgiven(market: SqlTransaction) -> None:
    assert market.insert_strike("host_1", Strike.FALSE_CLAIM, "att_1", "a lie", 10)
    assert not market.insert_strike("host_1", Strike.FALSE_CLAIM, "att_1", "another", 11)
    assert market.insert_strike("host_1", Strike.FOREIGN_ATTEMPT, "att_1", "", 20)
    assert market.insert_strike("host_1", Strike.UNKNOWN_ATTEMPT, "att_9", "", 30)
    assert market.strikes_of(["host_1", "host_9"], 0) == {"host_1": 2, "host_9": 0}
    assert market.strikes_of(["host_1"], 11) == {"host_1": 1}
    market.insert_strike("host_1", Strike.FORGIVEN, "request", "", 40)
    assert market.strikes_of(["host_1"], 0) == {"host_1": 0}
    market.insert_strike("host_1", Strike.OTHER_EPOCH, "att_2", "", 50)
    assert market.strikes_of(["host_1"], 0) == {"host_1": 1}


def test_what_a_host_can_make_us_remember_is_bounded(market: SqlTransaction) -> None:
    told = [
        market.insert_strike("host_1", Strike.UNKNOWN_ATTEMPT, f"att_{n}", "", n)
        for n in range(STRIKES_KEPT_MAX + 5)
    ]
    assert sum(told) == STRIKES_KEPT_MAX
    assert market.insert_strike("host_1", Strike.FORGIVEN, "request", "", 1)
