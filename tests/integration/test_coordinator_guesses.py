"""Who guesses at accounts and passwords: slowed down, told nothing, and written down."""

from typing import Any

import pytest

from coordinator import serving
from coordinator.api.hashing import Hashing
from coordinator.api.login import Signing
from coordinator.api.slowing import Slowing
from coordinator.domain.refusal import Refusal
from coordinator.settings import Settings
from runtime.ids import new_uuid
from tests.support.running_coordinator import Running
from tests.support.scripts import Play
from tests.support.signing_in import (
    PASSWORD,
    acts,
    ask,
    cheap,
    login,
    login_stub,
    refresh,
    refused,
    refused_as,
    signed_in,
)
from usance.v1 import login_pb2 as g
from usance.v1 import types_pb2 as t


@pytest.fixture
def template(template: Settings) -> Settings:
    return cheap(template)


def test_an_account_that_is_not_there_costs_as_much_as_a_wrong_password(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One verification each, of hashes of one cost; what they take is not told apart by anything else."""
    verified: list[str] = []
    verify = Hashing._verify

    def noted(hashing: Hashing, known: str, password: str) -> bool:
        verified.append(known.rpartition("$")[0].rpartition("$")[0])
        return verify(hashing, known, password)

    monkeypatch.setattr(Hashing, "_verify", noted)

    async def script(market: Running) -> None:
        await signed_in(market)
        said = [await refused(login(market, name, "guessed")) for name in ("nobody", "seller", "buyer")]
        assert len({str(error.details()) for error in said}) == 1
        assert verified == ["$argon2id$v=19$m=1024,t=1,p=1"] * 3

    play(script)


def test_who_guesses_waits_longer_each_time_and_the_owner_at_home_does_not(play: Play) -> None:
    async def script(market: Running) -> None:
        await signed_in(market)
        # From where nobody was signed in: an account that was invited only.
        await market.account("stranger", t.ROLE_BUYER)
        for _ in range(5):
            assert await refused_as(login(market, "stranger", "guessed")) == "UNAUTHENTICATED"
        waits = []
        for _ in range(4):
            error = await refused(login(market, "stranger", "guessed"))
            waits.append(str(error.details()).rpartition("; ")[2])
            market.clock.advance(int(waits[-1].split()[-2]) * 1_000)
            assert await refused_as(login(market, "stranger", "guessed")) == "UNAUTHENTICATED"
        assert waits == [f"try again in {seconds} s" for seconds in (1, 2, 4, 8)]
        # Whoever else signs in is not slowed, nor is an account that does not exist told from one that does.
        await login(market, "buyer")
        for _ in range(5):
            assert await refused_as(login(market, "nobody", "guessed")) == "UNAUTHENTICATED"
        assert await refused_as(login(market, "nobody", "guessed")) == "RATE_LIMITED"
        # Another account's guesses from this network end, too, after more of them.
        for number in range(30):
            if await refused_as(login(market, f"guess-{number}", "guessed")) == "RATE_LIMITED":
                break
        else:
            raise AssertionError("an address may guess for ever")
        assert await refused_as(login(market, "buyer")) == "RATE_LIMITED"
        market.clock.advance(1_000)
        await login(market, "buyer")
        # What was tried is written down; what was not looked at is not.
        failed = [act for act in await acts(market) if act.rpc == "LoginService/Login" and act.result != "OK"]
        assert {act.result for act in failed} == {"UNAUTHENTICATED"}
        assert any(act.request == "account_name=stranger" for act in failed)
        assert {act.address for act in failed} == {"127.0.0.1"}

    play(script)


def test_an_owner_who_was_here_is_not_locked_out_by_strangers(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    slowings: list[Slowing] = []
    signing_of = serving.signing_of

    def noted(*given: Any) -> Signing:
        signing = signing_of(*given)
        slowings.append(signing.slowing)
        return signing

    monkeypatch.setattr(serving, "signing_of", noted)

    async def script(market: Running) -> None:
        await signed_in(market)
        (slowing,) = slowings
        for number in range(5):
            slowing.begin("buyer", f"192.0.2.{number}", at_home=False)
        with pytest.raises(Refusal, match="try again in 1 s"):
            slowing.begin("buyer", "192.0.2.10", at_home=False)
        await login(market, "buyer")

    play(script)


def test_bad_secrets_of_each_kind_are_refused_and_slowed_down(play: Play) -> None:
    async def script(market: Running) -> None:
        stub = login_stub(market)
        unknown = g.AcceptInvitationRequest(
            request_id=str(new_uuid()), invitation="usance_inv_" + "x" * 32, new_password=PASSWORD
        )
        assert await refused_as(ask(stub.AcceptInvitation, unknown)) == "UNAUTHENTICATED"
        said = {await refused_as(refresh(market, "usance_ref_" + "x" * 32)) for _ in range(80)}
        assert said == {"UNAUTHENTICATED", "RATE_LIMITED"}

    play(script)
