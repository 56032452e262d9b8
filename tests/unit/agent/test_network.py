"""What of the network a job may reach: every rule that keeps it in, one by one."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from agent.domain.attempt import AttemptKey, JobOrder, Network
from agent.domain.network import (
    REFUSED,
    Allowed,
    Destination,
    JobNetwork,
    NetworkPolicy,
    allowed_of,
    destination_of,
    interface_of,
    is_public,
    job_network_of,
    must_be_refused,
    network_plan,
    ours,
    rules,
    rules_removed,
    rules_v6,
    subnet_of,
    why_not_let,
)
from tests.support.orders import order

SUBNET = IPv4Network("10.213.0.16/28")
SITE = IPv4Address("93.184.215.14")
POLICY = NetworkPolicy(network_max=Network.INTERNET)
ONLINE = JobNetwork(interface="usn1", network=Network.INTERNET)
LISTED = JobNetwork(
    interface="usn2",
    network=Network.ALLOW_LIST,
    allowed=(
        Allowed(network=IPv4Network("93.184.215.14"), port=443),
        Allowed(network=IPv4Network("8.8.8.0/24"), port=None),
    ),
)
# As an engine lists its rules.
ENGINE = ["-P INPUT ACCEPT", "-N DOCKER-USER", "-A FORWARD -j DOCKER-USER", "-A DOCKER-USER -j RETURN"]


def text_of(*jobs: JobNetwork, own: tuple[str, ...] = (), listed: list[str] = ENGINE) -> list[str]:
    networks = [IPv4Network(each) for each in own]
    return rules(jobs, networks, listed=listed).splitlines()


def listed_order(*destinations: str) -> JobOrder:
    return order(network=Network.ALLOW_LIST, network_destinations=destinations)


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.1", "10.1.2.3", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.17.0.1", "192.0.2.1"),
        *("192.168.1.1", "198.18.0.1", "203.0.113.1", "224.0.0.1", "255.255.255.255"),
    ],
)
def test_what_is_not_public_is_refused_to_every_job(address):
    assert not is_public(IPv4Address(address))
    (network,) = [each for each in REFUSED if IPv4Address(address) in each]
    text = text_of(ONLINE)
    refusal = f"-A USANCE-JOB -d {network} -j REJECT --reject-with icmp-admin-prohibited"
    assert text.index(refusal) < text.index("-A USANCE-JOB -i usn1 -j RETURN")


def test_the_rest_is_public():
    assert is_public(SITE)
    assert all(is_public(IPv4Address(text)) for text in ("1.1.1.1", "11.0.0.0", "172.32.0.0", "192.169.0.0"))


def test_the_sellers_own_network_is_refused_where_its_addresses_are_public():
    text = text_of(ONLINE, own=("193.0.6.0/24", "10.1.0.0/16"))
    refusals = [line for line in text if "193.0.6.0/24" in line]
    assert len(refusals) == 1
    assert text.index(refusals[0]) < text.index("-A USANCE-JOB -i usn1 -j RETURN")
    assert not [line for line in text if "10.1.0.0/16" in line]


def test_a_list_lets_through_what_stands_in_it_and_then_nothing():
    text = text_of(LISTED)
    allowed = [line for line in text if "-i usn2 " in line]
    assert allowed == [
        "-A USANCE-JOB -i usn2 -d 93.184.215.14/32 -p tcp --dport 443 -j RETURN",
        "-A USANCE-JOB -i usn2 -d 93.184.215.14/32 -p udp --dport 443 -j RETURN",
        "-A USANCE-JOB -i usn2 -d 8.8.8.0/24 -j RETURN",
    ]
    of_jobs = [line for line in text if line.startswith("-A USANCE-JOB")]
    assert of_jobs[-1] == "-A USANCE-JOB -j REJECT --reject-with icmp-admin-prohibited"


def test_no_mail_is_sent_and_nobody_calls_a_job():
    text = text_of(ONLINE)
    assert "-A USANCE-JOB ! -i usn+ -j DROP" in text
    (mail,) = [line for line in text if "25,465,587" in line]
    assert text.index(mail) < text.index("-A USANCE-JOB -i usn1 -j RETURN")


def test_the_host_itself_is_refused():
    text = text_of(ONLINE)
    assert "-A USANCE-HOST -j REJECT --reject-with icmp-admin-prohibited" in text
    assert "-I INPUT 1 -i usn+ -j USANCE-HOST" in text


def test_the_rules_come_first_where_forwarded_packets_pass():
    text = text_of(ONLINE)
    for chain in ("DOCKER-USER", "FORWARD"):
        assert f"-I {chain} 1 -i usn+ -j USANCE-JOB" in text
        assert f"-I {chain} 1 -o usn+ -j USANCE-JOB" in text
    assert "DOCKER-USER" not in "".join(text_of(ONLINE, listed=["-P FORWARD ACCEPT"]))


def test_setting_them_again_leaves_no_second_ones_and_removing_them_none():
    before = [
        *ENGINE,
        "-N USANCE-JOB",
        "-A DOCKER-USER -i usn+ -j USANCE-JOB",
        "-A INPUT -i usn+ -j USANCE-HOST",
        "-A USANCE-JOB -i usn1 -j RETURN",
    ]
    text = text_of(ONLINE, listed=before)
    assert "-D DOCKER-USER -i usn+ -j USANCE-JOB" in text
    assert "-D INPUT -i usn+ -j USANCE-HOST" in text
    assert ours(before) == before[4:]
    assert rules_removed(before).splitlines() == [
        "*filter",
        "-D DOCKER-USER -i usn+ -j USANCE-JOB",
        "-D INPUT -i usn+ -j USANCE-HOST",
        "-F USANCE-JOB",
        "-X USANCE-JOB",
        "COMMIT",
    ]


def test_a_subnet_meets_nothing_that_is_there():
    pool = IPv4Network("10.213.0.0/24")
    assert subnet_of(pool, []) == IPv4Network("10.213.0.0/28")
    taken = [IPv4Network("10.213.0.0/28"), IPv4Network("10.213.0.20/30"), IPv4Network("192.168.0.0/16")]
    assert subnet_of(pool, taken) == IPv4Network("10.213.0.32/28")
    assert subnet_of(pool, [IPv4Network("10.0.0.0/8")]) is None


def test_an_interface_has_a_name_that_the_kernel_takes():
    names = {interface_of(AttemptKey(attempt_id="a" * 64, epoch=epoch)) for epoch in range(100)}
    assert len(names) == 100
    assert {len(name) for name in names} == {13}


@pytest.mark.parametrize(
    ("text", "destination"),
    [
        ("site.example:443", Destination(name="site.example", network=None, port=443)),
        ("8.8.8.8", Destination(name="", network=IPv4Network("8.8.8.8/32"), port=None)),
        ("8.8.8.0/24:53", Destination(name="", network=IPv4Network("8.8.8.0/24"), port=53)),
    ],
)
def test_a_destination_is_read(text, destination):
    assert destination_of(text) == destination


@pytest.mark.parametrize("text", ["", ":1", "a:0", "a:65536", "a:b"])
def test_what_is_no_destination_is_refused(text):
    with pytest.raises(ValueError, match=r".+"):
        destination_of(text)


def planned(job: JobOrder, **addresses: list[str]):
    by_name = {name.replace("_", "."): [IPv4Address(a) for a in found] for name, found in addresses.items()}
    return network_plan(job, POLICY, labels={"a": "b"}, subnet=SUBNET, addresses=by_name)


def test_names_of_a_list_are_given_and_no_others_can_be_asked_for():
    plan = planned(listed_order("site.example:443", "8.8.8.0/24"), site_example=["93.184.215.14", "10.0.0.1"])
    # A name that points into somebody's own network opens nothing.
    assert plan.hosts == (("site.example", "93.184.215.14"),)
    assert plan.dns == ("192.0.2.1",)
    assert not is_public(IPv4Address(plan.dns[0]))
    job = job_network_of(plan.labels, plan.interface)
    assert job.network is Network.ALLOW_LIST
    assert [str(allowed) for allowed in job.allowed] == ["93.184.215.14/32:443", "8.8.8.0/24"]
    assert [allowed_of(str(allowed)) for allowed in job.allowed] == list(job.allowed)


def test_with_the_internet_names_are_asked_for_outside_the_lan():
    plan = planned(order(network=Network.INTERNET))
    assert plan.dns == POLICY.dns
    assert all(is_public(IPv4Address(address)) for address in plan.dns)
    assert job_network_of(plan.labels, plan.interface) == JobNetwork(
        interface=plan.interface, network=Network.INTERNET
    )


def test_the_bridge_lets_its_members_not_speak_with_each_other():
    plan = planned(order(network=Network.INTERNET))
    assert plan.options["com.docker.network.bridge.enable_icc"] == "false"
    assert plan.options["com.docker.network.bridge.name"] == plan.interface
    assert plan.gateway == IPv4Address("10.213.0.17")
    assert IPv4Address("10.213.0.18") not in plan.probe_addresses


def test_what_is_proved_before_a_start():
    host, router = IPv4Address("192.168.1.7"), IPv4Address("192.168.1.1")
    online = planned(order(network=Network.INTERNET))
    job = job_network_of(online.labels, online.interface)
    wanted = [str(address) for address in must_be_refused(online, job, [host], [router])]
    assert wanted == ["10.213.0.17", "169.254.169.254", "192.168.1.1", "192.168.1.7"]
    listed = planned(listed_order("1.1.1.0/24"))
    listed_job = job_network_of(listed.labels, listed.interface)
    assert must_be_refused(listed, listed_job, [], [])[-1] == IPv4Address("9.9.9.9")


def test_the_seller_decides_how_much_a_job_may_reach():
    nothing, everything = NetworkPolicy(), POLICY
    some = replace(POLICY, network_max=Network.ALLOW_LIST, destinations=("site.example:443", "8.8.8.0/24"))
    assert why_not_let(order(), nothing) == ""
    assert why_not_let(order(network=Network.INTERNET), nothing) != ""
    assert why_not_let(order(network=Network.INTERNET), some) != ""
    assert why_not_let(order(network=Network.INTERNET), everything) == ""
    assert why_not_let(listed_order("anything.example"), everything) == ""
    assert why_not_let(listed_order("site.example:443", "8.8.8.8:53"), some) == ""
    for text in ("site.example:80", "site.example", "other.example:443", "8.8.0.0/16"):
        assert text in why_not_let(listed_order(text), some)


def test_of_ipv6_a_bridge_takes_nothing_and_setting_it_again_changes_nothing():
    ways = ["-A FORWARD -o usn+ -j USANCE-JOB", "-A FORWARD -i usn+ -j USANCE-JOB"]
    listed = ["-N USANCE-JOB", *ways, "-A INPUT -i usn+ -j USANCE-JOB", "-A USANCE-JOB -j DROP"]
    text = rules_v6(listed=listed).splitlines()
    assert [line for line in text if line.startswith("-A")] == ["-A USANCE-JOB -j DROP"]
    assert {line.replace("-D", "-A") for line in text if line.startswith("-D")} == set(listed[1:4])
    assert {line.replace("-I", "-A").replace(" 1 ", " ") for line in text if line.startswith("-I")} == set(
        listed[1:4]
    )
