"""What the market's store knows of hosts, on SQLite and on PostgreSQL alike."""

from dataclasses import replace

from coordinator.domain.host import Certificate, GpuHealth, Hold, Host, HostState, Network, Terms
from coordinator.domain.hours import SaleWindow
from coordinator.domain.images import ImagePolicy
from coordinator.domain.states import AttemptState, Cause, EndReason
from coordinator.store.transaction import SqlTransaction
from tests.support.store_fixtures import BUYER, DIGEST, SELLER
from tests.support.values import at, attempt, gpu, room


def test_an_enrolment_token_is_used_by_the_first_key_that_brings_it(market: SqlTransaction) -> None:
    secret, key, other = (bytes([n]) * 32 for n in (1, 2, 3))
    market.insert_enrolment_token(secret, SELLER, expires_ms=1_000)
    assert market.use_enrolment_token(secret, key, "host_a", 1_000) is None, "expired"
    assert market.use_enrolment_token(secret, key, "host_a", 999) == "host_a"
    assert market.use_enrolment_token(secret, key, "host_b", 999) == "host_a", "the same key, the same host"
    assert market.use_enrolment_token(secret, other, "host_c", 999) is None
    assert market.use_enrolment_token(bytes([9]) * 32, key, "host_d", 999) is None


def test_a_host_is_lost_until_it_says_hello(market: SqlTransaction) -> None:
    market.insert_host("host_2", DIGEST, at(7))
    new = market.host("host_2")
    assert new is not None
    assert (new.account_id, new.account_name, new.state) == (SELLER, "seller", HostState.LOST)
    assert market.host("host_9") is None
    assert market.host_ids_of(SELLER, "", 9) == ["host_1", "host_2"]
    assert market.host_ids_of(SELLER, "", 1) == ["host_1"]
    assert market.host_ids_of(SELLER, "host_1", 9) == ["host_2"]
    assert market.host_ids_of(BUYER, "", 9) == []
    assert market.rooms_of(["host_2"]) == [room for room in market.rooms() if room.host.id == "host_2"]
    facts = replace(
        room("host_2").host.facts,
        gpus=(
            gpu("A", simulated=True),
            replace(gpu("B"), health=GpuHealth.LOST, health_reason="XID 79", board_uuid="GPU-1"),
        ),
        region="eu-1",
        cuda_version="12.4",
        labels={"rack": "b7"},
        download_bps=5,
        network_measured=True,
    )
    terms = Terms(
        prices={"x": 5},
        run_ms_max=7,
        trusted_accounts=frozenset({"a", "b"}),
        reclaim_notice_ms=9,
        network_max=Network.ALLOW_LIST,
        network_destinations=("example.org:443",),
        hours=(SaleWindow(start_minute=1, end_minute=2),),
        images=ImagePolicy(allowed=("team/*",), denied=("team/bad",)),
    )
    market.save_hello("host_2", facts, terms)
    assert market.host("host_2") == replace(new, facts=facts, terms=terms)
    assert [gpu.uuid for one in market.rooms() if one.host.id == "host_2" for gpu in one.free] == ["A"]


def test_a_hosts_state_is_written_over_what_was_read_alone(market: SqlTransaction) -> None:
    assert market.save_link("host_1", HostState.LOST, HostState.ONLINE, "connected", 5)
    assert not market.save_link("host_1", HostState.LOST, HostState.SUSPECT, "stale", 6)
    host = market.host("host_1")
    assert isinstance(host, Host)
    assert (host.state, host.link, host.reason, host.since_ms) == (
        HostState.ONLINE,
        HostState.ONLINE,
        "connected",
        5,
    )


def test_only_hosts_that_are_not_lost_are_listened_for(market: SqlTransaction) -> None:
    assert market.hosts_seen("", 9) == []
    assert market.host_seen("host_1") is None
    market.save_link("host_1", HostState.LOST, HostState.ONLINE, "connected", 5)
    market.save_seen("host_1", at(9))
    (seen,) = market.hosts_seen("", 9)
    assert (seen.host_id, seen.link, seen.at) == ("host_1", HostState.ONLINE, at(9))
    assert not seen.is_revoked
    assert not seen.is_wanted_back
    assert market.hosts_seen("host_1", 9) == market.hosts_seen("", 0) == []
    assert market.host_seen("host_1") == seen
    assert market.hosts_refused(["host_1", "host_0"]) == {"host_1": False}
    market.revoke_host("host_1", 10)
    assert market.hosts_refused(["host_1"]) == {"host_1": True}
    assert market.hosts_seen("", 9)[0].is_revoked


def test_a_room_is_what_no_attempt_has(market: SqlTransaction) -> None:
    facts = replace(room().host.facts, gpus=(gpu("GPU-1"), gpu("GPU-2")))
    market.save_hello("host_1", facts, Terms(prices={}))
    market.insert_attempt(attempt())
    (found,) = market.rooms()
    assert found.free == (gpu("GPU-2"),)
    market.save_attempt(
        attempt(), attempt(state=AttemptState.ENDED, end_reason=EndReason.EXITED, cause=Cause.BUYER)
    )
    (found,) = market.rooms()
    assert found.free == (gpu("GPU-1"), gpu("GPU-2"))


def test_what_holds_a_host_back_is_told_before_that_it_is_heard(market: SqlTransaction) -> None:
    market.save_link("host_1", HostState.LOST, HostState.ONLINE, "connected", 5)
    market.save_hold("host_1", Hold.DRAINING, "wanted back", 8)
    ((host, since_ms),) = market.draining(["host_1"]).rows
    assert (host.state, host.link, host.reason, since_ms) == (
        HostState.DRAINING,
        HostState.ONLINE,
        "wanted back",
        8,
    )
    seen = market.host_seen("host_1")
    assert seen is not None
    assert seen.is_wanted_back
    market.save_hold("host_1", Hold.NONE, "taken up again", 9)
    assert market.draining(["host_1"]).rows == []
    back = market.host("host_1")
    assert back is not None
    assert (back.state, back.reason) == (HostState.ONLINE, "connected")


def test_a_quarantine_leaves_the_sellers_wish_beneath_it(market: SqlTransaction) -> None:
    market.save_link("host_1", HostState.LOST, HostState.ONLINE, "connected", 5)
    market.save_hold("host_1", Hold.DRAINING, "wanted back", 8)
    for now_ms in (9, 10):
        market.save_hold("host_1", Hold.QUARANTINED, "it lies", now_ms)
    ((host, since_ms),) = market.draining(["host_1"]).rows
    assert (host.hold, host.hold_under, host.reason, since_ms) == (
        Hold.QUARANTINED,
        Hold.DRAINING,
        "it lies",
        8,
    )
    for now_ms in (11, 12):
        market.lift_quarantine("host_1", "wanted back", now_ms)
    ((host, since_ms),) = market.draining(["host_1"]).rows
    assert (host.hold, host.hold_under, host.state, since_ms) == (
        Hold.DRAINING,
        Hold.NONE,
        HostState.DRAINING,
        8,
    )


def test_how_a_host_kept_its_promises_is_kept(market: SqlTransaction) -> None:
    market.save_reliability("host_1", 950_000)
    found = market.host("host_1")
    assert found is not None
    assert found.reliability_ppm == 950_000


def test_who_has_only_certificates_of_another_authority(market: SqlTransaction) -> None:
    old, new = b"o" * 32, b"n" * 32
    # Of host_1 nothing is noted: it may have one of before.
    assert market.hosts_certified_only_by_others(new, 10) == ["host_1"]
    market.insert_certificate("host_1", Certificate(serial="1", authority_digest=old, expires_ms=20), 1)
    assert market.hosts_certified_only_by_others(new, 10) == ["host_1"]
    assert market.hosts_certified_only_by_others(old, 10) == []
    assert market.hosts_certified_only_by_others(new, 20) == [], "it has none that is good"
    market.insert_certificate("host_1", Certificate(serial="2", authority_digest=new, expires_ms=20), 2)
    assert market.hosts_certified_only_by_others(new, 10) == []
    market.revoke_host("host_1", 3)
    assert market.hosts_certified_only_by_others(b"x" * 32, 10) == []


def test_a_refused_host_is_told_apart(market: SqlTransaction) -> None:
    market.save_link("host_1", HostState.LOST, HostState.ONLINE, "connected", 5)
    assert list(market.save_all_seen({"host_1": at(9)})) == []
    market.revoke_host("host_1", 7)
    host = market.host("host_1")
    assert host is not None
    assert host.revoked_ms == 7
    assert list(market.save_all_seen({"host_1": at(10)})) == ["host_1"]
