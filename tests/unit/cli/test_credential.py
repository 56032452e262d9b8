"""A session that several programs share is renewed by one of them at a time, and survives a lost answer."""

import asyncio
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from cli.client.credential import MARGIN_MS, Credential
from cli.connection import Connection, SessionTokens
from cli.errors import Unreachable, WrongUse
from cli.profile import Options, ProfileSession, forget, keep, load

PLACE = Connection(target="market.example.org:7410", authority_pem=b"pem", token="acc-1")
FIRST = SessionTokens(access_token="acc-1", good_until_ms=100_000, refresh_token="ref-1")


class Clock:
    boot_id = "b"
    now_ms = 50_000

    def wall_ms(self) -> int:
        return self.now_ms

    boot_ms = wall_ms

    async def sleep_ms(self, duration_ms: int) -> None:
        await asyncio.sleep(0)


class Market:
    """Gives each next pair once; the same again under the same id."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.newest, self.asked = clock, 1, list[tuple[str, str]]()
        self.given: dict[str, tuple[str, SessionTokens]] = {}
        # How many of the next answers are lost.
        self.lost = 0

    async def renew(self, refresh_token: str, request_id: str) -> SessionTokens:
        self.asked.append((refresh_token, request_id))
        await asyncio.sleep(0)
        if refresh_token in self.given:
            known_id, tokens = self.given[refresh_token]
            assert known_id == request_id, "somebody else has it: the session ends"
        else:
            assert refresh_token == f"ref-{self.newest}"
            self.newest += 1
            tokens = SessionTokens(
                access_token=f"acc-{self.newest}",
                good_until_ms=self.clock.now_ms + 900_000,
                refresh_token=f"ref-{self.newest}",
            )
            self.given[refresh_token] = request_id, tokens
        if self.lost:
            self.lost -= 1
            raise Unreachable("the answer was lost")
        return tokens


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "usance" / "profiles.toml"
    keep(made, "default", PLACE, FIRST)
    return made


def test_what_is_kept_is_the_owners_alone_and_comes_back(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.with_name("profiles.toml.lock").stat().st_mode) == 0o600
    assert ProfileSession(path, "default").read() == FIRST
    assert ProfileSession(path, "other").read() is None
    environment = {"USANCE_PROFILE_FILE": str(path)}
    found = load(Options(), environment)
    assert found.session is not None
    assert (found.token, found.session.read()) == ("acc-1", FIRST)
    # A token of the environment's is no session.
    assert load(Options(), {**environment, "USANCE_TOKEN": "tok"}).session is None
    with ProfileSession(path, "default").alone() as is_ours, ProfileSession(path, "default").alone() as other:
        assert (is_ours, other) == (True, False)
    forget(path, "default")
    ProfileSession(path, "default").write(FIRST)
    assert not path.exists(), "what was forgotten stays forgotten"


def test_it_is_renewed_shortly_before_its_end_and_when_it_was_refused(path: Path) -> None:
    async def scene() -> None:
        clock = Clock()
        market = Market(clock)
        mine = Credential("acc-1", ProfileSession(path, "default"), market.renew, clock)
        assert await mine.token() == "acc-1"
        clock.now_ms = 100_000 - MARGIN_MS
        assert await mine.token() == "acc-2"
        assert await mine.token() == "acc-2"
        assert len(market.asked) == 1
        assert mine.distrust("acc-2")
        assert await mine.token() == "acc-3"
        assert mine.distrust("acc-2"), "an old one that was refused says nothing of the new one"
        assert await mine.token() == "acc-3"
        kept = ProfileSession(path, "default").read()
        assert kept is not None
        assert (kept.access_token, kept.refresh_token, kept.renewing) == ("acc-3", "ref-3", "")
        plain = Credential("usance_tok_x", None, market.renew, clock)
        assert await plain.token() == "usance_tok_x"
        assert not plain.distrust("usance_tok_x")

    asyncio.run(scene())


def test_many_programs_at_once_renew_it_once(path: Path) -> None:
    async def scene() -> None:
        clock = Clock()
        market = Market(clock)
        programs = [
            Credential("acc-1", ProfileSession(path, "default"), market.renew, clock) for _ in range(10)
        ]
        clock.now_ms = 100_000
        found = await asyncio.gather(*(one.token() for one in programs for _ in range(3)))
        assert set(found) == {"acc-2"}
        assert len(market.asked) == 1

    asyncio.run(scene())


def test_a_lost_answer_is_asked_for_again_also_by_the_next_program(path: Path) -> None:
    async def scene() -> None:
        clock = Clock()
        clock.now_ms = 100_000
        market = Market(clock)
        market.lost = 2
        first = Credential("acc-1", ProfileSession(path, "default"), market.renew, clock)
        for _ in range(2):
            with pytest.raises(Unreachable):
                await first.token()
        next_one = Credential("acc-1", ProfileSession(path, "default"), market.renew, clock)
        assert await next_one.token() == "acc-2"
        assert len(set(market.asked)) == 1, "in the same words"
        assert await first.token() == "acc-2", "it takes what the other has kept"
        assert len(market.asked) == 3

    asyncio.run(scene())


def test_an_answer_that_is_as_good_as_over_is_followed_by_another(path: Path) -> None:
    async def scene() -> None:
        clock = Clock()
        market = Market(clock)
        session = ProfileSession(path, "default")
        # It was given long ago, and its answer lost.
        await market.renew("ref-1", "r-1")
        clock.now_ms += 2_000_000
        session.write(replace(FIRST, renewing="r-1"))
        assert await Credential("acc-1", session, market.renew, clock).token() == "acc-3"

    asyncio.run(scene())


def test_who_signed_out_meanwhile_is_told_so(path: Path) -> None:
    async def scene() -> None:
        clock = Clock()
        clock.now_ms = 100_000
        mine = Credential("acc-1", ProfileSession(path, "default"), Market(clock).renew, clock)
        forget(path, "default")
        with pytest.raises(WrongUse, match="run `usance login`"):
            await mine.token()

    asyncio.run(scene())


def test_who_is_held_up_for_ever_says_so(path: Path) -> None:
    async def scene() -> None:
        clock = Clock()
        clock.now_ms = 100_000
        mine = Credential("acc-1", ProfileSession(path, "default"), Market(clock).renew, clock)
        held = pytest.raises(WrongUse, match="another program has held the profiles")
        with ProfileSession(path, "default").alone(), held:
            await mine.token()
        assert await mine.token() == "acc-2"

    asyncio.run(scene())
