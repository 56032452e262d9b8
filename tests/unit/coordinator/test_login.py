"""What is asked of a password, how guesses are slowed down, and how hashing is bounded."""

import asyncio
import threading

import pytest

from coordinator.api.hashing import WAITING_MAX, Cost, Hashing
from coordinator.api.slowing import Slowing, network_of
from coordinator.domain.login import Failures, Slowness, failed, failures_wait_ms, password_fault
from coordinator.domain.refusal import Refusal
from tests.unit.coordinator.test_limits import Clock

CHEAP = Cost(memory_mib=1, passes=1, lanes=1)
RULE = Slowness(free=3, wait_ms_max=60_000)


@pytest.mark.parametrize(
    ("password", "fault"),
    [
        ("", "12 to 1024 bytes"),
        ("eleven byte", "12 to 1024 bytes"),
        ("é" * 513, "12 to 1024 bytes"),
        ("abcabcabcabc", "at least 4 different characters"),
        ("Alice-Of-Usance", "something else than the account's name"),
        ("twelve bytes", ""),
        ("пароль из слов", ""),
    ],
)
def test_a_new_password_is_long_and_no_key_held_down(password, fault):
    assert password_fault(password, "alice-of-usance") == fault


def test_waits_double_up_to_the_longest_and_failures_are_forgotten():
    failures, waits = Failures(), []
    for _ in range(12):
        failures = failed(failures, RULE, 0)
        waits.append(failures_wait_ms(failures, RULE, 0) // 1_000)
    assert waits == [0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
    assert failures_wait_ms(failures, RULE, 59_999) == 1
    assert failures_wait_ms(failures, RULE, 60_000) == 0
    # Twelve of the longest waits later it is as if nothing had been.
    assert failed(failures, RULE, 12 * 60_000) == Failures(count=1, last_ms=12 * 60_000)
    assert failures_wait_ms(Failures(count=10**6, last_ms=0), RULE, 0) == 60_000


def test_many_guesses_at_once_are_as_many_guesses():
    slowing = Slowing(RULE, Slowness(free=1_000, wait_ms_max=60_000), Clock())
    tries = [slowing.begin("alice", "192.0.2.1", at_home=False) for _ in range(3)]
    with pytest.raises(Refusal, match="this account; try again in 1 s"):
        slowing.begin("alice", "192.0.2.1", at_home=False)
    slowing.not_tried(tries[0])
    slowing.succeeded(slowing.begin("alice", "192.0.2.1", at_home=False))
    for _ in range(3):
        slowing.begin("alice", "192.0.2.1", at_home=False)
    slowing.begin("alice", "192.0.2.1", at_home=True)
    slowing.begin("bob", "192.0.2.1", at_home=False)


def test_a_login_of_ones_own_pardons_no_guesses_from_the_same_network():
    slowing = Slowing(Slowness(free=1_000, wait_ms_max=60_000), RULE, Clock())
    for number in range(2):
        slowing.begin(f"guess-{number}", "192.0.2.1", at_home=False)
    slowing.succeeded(slowing.begin("mallory", "192.0.2.1", at_home=True))
    slowing.begin("guess-2", "192.0.2.1", at_home=False)
    with pytest.raises(Refusal, match="your address"):
        slowing.look("192.0.2.1")
    slowing.look("192.0.2.2")


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("[2001:db8:1:2:3:4:5:6]", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("[fe80::1%25eth0]", "fe80::/64"),
        ("/run/a", "/run/a"),
        ("", ""),
    ],
)
def test_a_network_is_what_one_customer_has(address, network):
    assert network_of(address) == network


def test_a_password_is_right_whatever_keyboard_typed_it_and_costs_as_much_for_nobody():
    async def scene() -> None:
        hashing = Hashing(CHEAP, 1)
        kept = await hashing.hash("caf\u00e9 au lait")
        assert kept.startswith("$argon2id$v=19$m=1024,t=1,p=1$")
        assert await hashing.is_right(kept, "cafe\u0301 au lait")
        assert not await hashing.is_right(kept, "cafe au lait")
        assert not await hashing.is_right("no hash at all", "cafe au lait")
        # Nobody's is of the same form and cost, and nothing is right for it.
        nobodys = hashing._nobodys
        assert (len(nobodys), hashing.is_outdated(nobodys)) == (len(kept), False)
        verified: list[str] = []
        verify = hashing._hasher.verify

        def succeeds(known: str, password: str) -> bool:
            verified.append(known)
            return verify(kept, password)

        hashing._verify = succeeds  # type: ignore[method-assign]
        assert not await hashing.is_right(None, "caf\u00e9 au lait"), "also if a verification succeeded"
        assert verified == [nobodys]
        assert Hashing(Cost(memory_mib=2, passes=1, lanes=1), 1).is_outdated(kept)

    asyncio.run(scene())


def test_so_many_are_hashed_at_once_so_many_wait_and_the_rest_is_told_to_come_again():
    async def scene() -> None:
        hashing, go, running, most = Hashing(CHEAP, 2), threading.Event(), 0, 0
        lock = threading.Lock()

        def slow(known: str, password: str) -> bool:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            go.wait(30)
            with lock:
                running -= 1
            return True

        hashing._verify = slow  # type: ignore[method-assign]
        tasks = [asyncio.create_task(hashing.is_right("x", "y")) for _ in range(2 * (1 + WAITING_MAX))]
        await asyncio.sleep(0)
        with pytest.raises(Refusal, match="try again in 1 s"):
            await hashing.is_right("x", "y")
        # Who went away has not made room: the memory is taken all the same.
        tasks[0].cancel()
        await asyncio.gather(tasks[0], return_exceptions=True)
        with pytest.raises(Refusal, match="try again in 1 s"):
            await hashing.is_right("x", "y")
        go.set()
        assert all(await asyncio.gather(*tasks[1:]))
        assert most == 2
        assert await hashing.is_right("x", "y")

    asyncio.run(scene())
