"""The command line signs in, stays signed in, and signs out: real processes and the real coordinator."""

import asyncio
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cli.client.market import open_market
from cli.exits import Exit
from cli.library import connect
from cli.model import Isolation, OfferFilter
from cli.profile import Options, ProfileSession, load
from cli.wishes import GpuRequest
from coordinator.settings import Settings
from tests.support.running_coordinator import Running
from tests.support.scripts import Play
from tests.support.signing_in import OTHER, PASSWORD, cheap, invitation, login
from usance.v1 import books_pb2 as b

MINUTE_MS = 60_000
EVERY_OFFER = OfferFilter(
    gpus=GpuRequest(count=1), isolation_min=Isolation.UNSPECIFIED, gpu_hour_price_micro_max=0
)


@pytest.fixture
def template(template: Settings) -> Settings:
    return cheap(template)


class Terminal:
    """One person's: their own profiles, and nothing else of the environment's."""

    def __init__(self, market: Running, folder: Path) -> None:
        self.profiles = folder / "profiles.toml"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("USANCE_")},
            "USANCE_PROFILE_FILE": str(self.profiles),
        }
        self.place = ["--server", market.settings.market, "--ca", str(market.settings.data_dir / "ca.pem")]

    async def __call__(self, *words: str, typed: str = "") -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cli", *words),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self.environment,
        )
        out, err = await process.communicate(typed.encode())
        assert process.returncode is not None
        assert not [secret for secret in (PASSWORD, OTHER) if secret in (out + err).decode()]
        return process.returncode, out.decode(), err.decode()


def test_from_an_invitation_to_signing_out(play: Play, tmp_path: Path) -> None:
    async def script(market: Running) -> None:
        usance = Terminal(market, tmp_path)
        secret = await invitation(market, "buyer")
        typed = f"{secret}\n{PASSWORD}\n"
        code, out, err = await usance("login", *usance.place, typed=typed)
        assert (code, err) == (0, "")
        assert out.startswith("signed in as buyer; kept as profile default")
        kept = usance.profiles.read_text()
        assert PASSWORD not in kept
        assert secret not in kept
        assert oct(usance.profiles.stat().st_mode & 0o777) == "0o600"
        # Its access token is over: the next command renews it by itself.
        before = ProfileSession(usance.profiles, "default").read()
        market.clock.advance(15 * MINUTE_MS)
        code, out, _ = await usance("sessions", "list", "--json")
        assert code == 0
        (session,) = json.loads(out)["sessions"]
        assert (session["current"], session["address"]) == (True, "127.0.0.1")
        after = ProfileSession(usance.profiles, "default").read()
        assert before is not None
        assert after is not None
        assert {before.access_token, before.refresh_token} & {
            after.access_token,
            after.refresh_token,
        } == set()
        # Another session, by the password; a changed password ends it.
        elsewhere = await login(market, "buyer")
        code, out, _ = await usance("password", typed=f"{PASSWORD}\n{OTHER}\n")
        assert (code, out) == (0, "the password is changed; your other sessions have ended\n")
        code, out, _ = await usance("sessions", "list", "--all")
        assert elsewhere.session_id in out
        assert out.count("ended ") == 1
        code, _, err = await usance("login", *usance.place, "--account", "buyer", typed=f"{PASSWORD}\n")
        assert (code, err) == (
            Exit.NOT_ALLOWED,
            "usance: the account or the password is not right\n",
        )
        code, out, _ = await usance("logout")
        assert code == 0
        assert f"{session['session_id']} is refused from now on" in out
        assert not usance.profiles.exists()
        code, out, _ = await usance("login", *usance.place, "--account", "buyer", typed=f"{OTHER}\n")
        assert code == 0
        listed = await market.operator.ask(market.operator.operations.ListActs, b.ListActsRequest())
        assert {"LoginService/Login", "LoginService/AcceptInvitation"} <= {act.rpc for act in listed.acts}

    play(script)


def test_the_operator_invites_resets_and_ends_sessions(play: Play, tmp_path: Path) -> None:
    async def script(market: Running) -> None:
        usance = Terminal(market, tmp_path)
        token = market.settings.data_dir / "operator.token"
        code, _, _ = await usance("login", *usance.place, "--token-file", str(token))
        assert code == 0
        code, secret, err = await usance("admin", "invite", "buyer")
        assert (code, secret.startswith("usance_inv_"), err.startswith("usance: good until ")) == (
            0,
            True,
            True,
        )
        buyer = Terminal(market, tmp_path / "buyer")
        code, _, _ = await buyer("login", *buyer.place, typed=f"{secret}{PASSWORD}\n")
        assert code == 0
        code, out, _ = await usance("admin", "sessions", "buyer", "--json")
        (session,) = json.loads(out)["sessions"]
        code, _, _ = await usance("admin", "session-revoke", "buyer", session["session_id"])
        assert code == 0
        code, _, err = await buyer("wallet")
        assert (code, err) == (
            Exit.NOT_ALLOWED,
            "usance: the session is unknown, over or revoked; sign in again\n",
        )
        # A session that is over is forgotten all the same.
        code, out, err = await buyer("logout")
        assert code == 0
        assert "could not be ended" in err
        assert not buyer.profiles.exists()

    play(script)


def test_several_programs_of_one_user_renew_at_once_and_none_is_put_out(play: Play, tmp_path: Path) -> None:
    """Commands and Python programs by one profile: a second use of a refresh token would end the session."""

    async def script(market: Running) -> None:
        usance = Terminal(market, tmp_path)
        secret = await invitation(market, "buyer")
        code, _, _ = await usance("login", *usance.place, typed=f"{secret}\n{PASSWORD}\n")
        assert code == 0
        market.clock.advance(15 * MINUTE_MS)
        _let_it_look_over(usance.profiles)
        programs = [usance("wallet"), usance("wallet"), *(_ask_from_python(usance) for _ in range(6))]
        done = await asyncio.gather(*programs)
        assert [code for code, _, _ in done] == [0] * len(programs)
        # A program that runs on, and whose token is refused in between, goes on.
        connection = load(Options(), usance.environment)
        async with open_market(connection) as mine:
            await mine.get_wallet()
            market.clock.advance(15 * MINUTE_MS)
            await mine.get_wallet()
            # So does one that opens a stream.
            market.clock.advance(15 * MINUTE_MS)
            offers = mine.watch_offers(EVERY_OFFER)
            assert await anext(aiter(offers)) == []

    play(script)


async def _ask_from_python(usance: Terminal) -> tuple[int, str, str]:
    async with connect(usance.environment) as market:
        return 0, str(await market.get_wallet()), ""


def _let_it_look_over(profiles: Path) -> None:
    """As this machine's clock would, if it went as fast as the test's."""
    session = ProfileSession(profiles, "default")
    kept = session.read()
    assert kept is not None
    session.write(replace(kept, good_until_ms=1))
