"""Passwords, invitations and sessions: the real coordinator over TLS, by a clock that the test moves."""

import asyncio
import logging
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import pytest

from coordinator.settings import Settings
from runtime.ids import new_uuid
from tests.support.running_coordinator import Running
from tests.support.scripts import Play, refusal
from tests.support.signing_in import (
    OTHER,
    PASSWORD,
    accept,
    acts,
    cheap,
    invitation,
    login,
    person,
    refresh,
    refused,
    refused_as,
    signed_in,
)
from usance.v1 import books_pb2 as b
from usance.v1 import login_pb2 as g
from usance.v1 import market_pb2 as m
from usance.v1 import types_pb2 as t

MINUTE_MS, DAY_MS = 60_000, 86_400_000
SELF = m.GetSelfRequest()


@pytest.fixture
def template(template: Settings) -> Settings:
    return cheap(template)


async def is_good(market: Running, secrets: Any) -> bool:
    somebody = person(market, secrets)
    try:
        await somebody.ask(somebody.account.GetSelf, SELF)
    except grpc.aio.AioRpcError as error:
        return refusal(error) != "UNAUTHENTICATED"
    return True


def test_from_an_invitation_to_a_password_to_a_session(play_on_both: Play) -> None:
    async def script(market: Running) -> None:
        secret = await invitation(market, "buyer")
        assert secret.startswith("usance_inv_")
        assert await refused_as(login(market, "buyer")) == "UNAUTHENTICATED"
        assert await refused_as(accept(market, secret, "too short")) == "INVALID_FIELD"
        assert await refused_as(accept(market, secret, "aaaaaaaaaaaaaaaa")) == "INVALID_FIELD"
        request_id = str(new_uuid())
        first = await accept(market, secret, request_id=request_id)
        assert first.access_token.startswith("usance_acc_")
        assert first.refresh_token.startswith("usance_ref_")
        assert first.access_lifetime_ms == 15 * MINUTE_MS
        # Asked again, the same; for somebody else it is used up.
        assert await accept(market, secret, request_id=request_id) == first
        assert await refused_as(accept(market, secret)) == "UNAUTHENTICATED"
        account = (await person(market, first).ask(person(market, first).account.GetSelf, SELF)).account
        assert account.name == "buyer"
        request_id = str(new_uuid())
        second = await login(market, "buyer", request_id=request_id)
        assert await login(market, "buyer", request_id=request_id) == second
        assert second.session_id != first.session_id
        me = person(market, second)
        listed = (await me.ask(me.sessions.ListSessions, g.ListSessionsRequest())).sessions
        assert [(one.session_id, one.label, one.current) for one in listed] == [
            (second.session_id, "", True),
            (first.session_id, "laptop", False),
        ]
        assert {one.address for one in listed} == {"127.0.0.1"}
        # An invitation that another followed, or whose time is over, is none.
        old, new = await invitation(market, "buyer"), await invitation(market, "buyer", lifetime_ms=MINUTE_MS)
        assert await refused_as(accept(market, old, OTHER)) == "UNAUTHENTICATED"
        market.clock.advance(MINUTE_MS)
        assert await refused_as(accept(market, new, OTHER)) == "UNAUTHENTICATED"
        assert await is_good(market, second)
        # A reset ends what there was.
        reset = await invitation(market, "buyer", reset=True)
        assert not await is_good(market, first)
        assert not await is_good(market, second)
        assert await refused_as(login(market, "buyer")) == "UNAUTHENTICATED"
        await accept(market, reset, OTHER)
        assert await refused_as(login(market, "buyer")) == "UNAUTHENTICATED"
        await login(market, "buyer", OTHER)

    play_on_both(script)


def test_a_refresh_token_is_good_once_and_one_that_comes_again_ends_the_session(play_on_both: Play) -> None:
    async def script(market: Running) -> None:
        first = await signed_in(market)
        request_id = str(new_uuid())
        second = await refresh(market, first.refresh_token, request_id)
        assert second.session_id == first.session_id
        assert len({first.access_token, first.refresh_token, second.access_token, second.refresh_token}) == 4
        # The answer was lost: who asks again in the same words gets the same, however late.
        market.clock.advance(MINUTE_MS)
        again = await refresh(market, first.refresh_token, request_id)
        assert (again.access_token, again.refresh_token) == (second.access_token, second.refresh_token)
        assert again.access_lifetime_ms == second.access_lifetime_ms - MINUTE_MS
        # Calls that were on their way still come with the older access token.
        assert await is_good(market, first)
        third = await refresh(market, second.refresh_token)
        assert await is_good(market, third)
        # A thief, with what was used: everything ends, also what is newest, and it is written down.
        error = await refused(refresh(market, second.refresh_token))
        assert "somebody else has it" in str(error.details())
        for secrets in (first, second, third):
            assert not await is_good(market, secrets)
            assert await refused_as(refresh(market, secrets.refresh_token)) == "UNAUTHENTICATED"
        (act,) = [one for one in await acts(market) if one.rpc == "LoginService/RefreshSession"]
        assert (act.result, act.request) == ("UNAUTHENTICATED", "")

    play_on_both(script)


def test_the_lost_answer_is_no_way_in_once_what_it_gave_was_used(play: Play) -> None:
    async def script(market: Running) -> None:
        first, request_id = await signed_in(market), str(new_uuid())
        second = await refresh(market, first.refresh_token, request_id)
        third = await refresh(market, second.refresh_token)
        assert await refused_as(refresh(market, first.refresh_token, request_id)) == "UNAUTHENTICATED"
        assert not await is_good(market, third)

    play(script)


def test_many_who_renew_at_once_get_one_pair_or_end_the_session(play: Play) -> None:
    """Under one request id they are one program that tries again and again."""

    async def script(market: Running) -> None:
        first, request_id = await signed_in(market), str(new_uuid())
        pairs = await asyncio.gather(*(refresh(market, first.refresh_token, request_id) for _ in range(20)))
        assert len({pair.refresh_token for pair in pairs}) == 1
        assert await is_good(market, pairs[0])

    play(script)


def test_every_credential_of_a_session_ends_in_time(play: Play) -> None:
    async def script(market: Running) -> None:
        first = await signed_in(market)
        market.clock.advance(15 * MINUTE_MS)
        assert not await is_good(market, first), "an access token that has expired"
        second = await refresh(market, first.refresh_token)
        assert await is_good(market, second)
        # A refresh token opens nothing but the next pair, and an access token gives none.
        somebody = person(market, second)
        somebody.metadata = (("authorization", f"Bearer {second.refresh_token}"),)
        assert await refused_as(somebody.ask(somebody.account.GetSelf, SELF)) == "UNAUTHENTICATED"
        assert await refused_as(refresh(market, second.access_token)) == "UNAUTHENTICATED"
        # What is made with a session ends with it.
        me = person(market, second)
        longer = b.CreateOwnTokenRequest(request_id=str(new_uuid()), lifetime_ms=31 * DAY_MS)
        assert await refused_as(me.ask(me.tokens.CreateOwnToken, longer)) == "INVALID_FIELD"
        made = b.CreateOwnTokenRequest(request_id=str(new_uuid()))
        token = await me.ask(me.tokens.CreateOwnToken, made)
        assert token.expires_at_ms <= second.expires_at_ms
        market.clock.advance(30 * DAY_MS)
        error = await refused(refresh(market, second.refresh_token))
        assert "over or revoked" in str(error.details())

    play(script)


def test_a_revoked_session_opens_nothing_and_only_its_owner_and_the_operator_end_it(play: Play) -> None:
    async def script(market: Running) -> None:
        mine, thief = await signed_in(market), await login(market, "buyer")
        me = person(market, mine)
        other = await market.account("other", t.ROLE_BUYER)
        revoke = g.RevokeSessionRequest(request_id=str(new_uuid()), session_id=thief.session_id)
        assert await refused_as(other.ask(other.sessions.RevokeSession, revoke)) == "NOT_FOUND"
        named = g.RevokeSessionRequest(
            request_id=str(new_uuid()), session_id=thief.session_id, account_name="buyer"
        )
        assert await refused_as(other.ask(other.sessions.RevokeSession, named)) == "FORBIDDEN"
        foreign = g.ListSessionsRequest(account_name="buyer")
        assert await refused_as(other.ask(other.sessions.ListSessions, foreign)) == "FORBIDDEN"
        assert await is_good(market, thief)
        for _ in range(2):
            await me.ask(me.sessions.RevokeSession, revoke)
        assert not await is_good(market, thief)
        assert await refused_as(refresh(market, thief.refresh_token)) == "UNAUTHENTICATED"
        await market.operator.ask(
            market.operator.sessions.RevokeSession,
            g.RevokeSessionRequest(
                request_id=str(new_uuid()), session_id=mine.session_id, account_name="buyer"
            ),
        )
        assert not await is_good(market, mine)
        listed = await market.operator.ask(
            market.operator.sessions.ListSessions, g.ListSessionsRequest(account_name="buyer", all=True)
        )
        assert [one.revoked_at_ms > 0 for one in listed.sessions] == [True, True]

    play(script)


def test_a_changed_password_ends_every_other_session(play: Play) -> None:
    async def script(market: Running) -> None:
        mine, other = await signed_in(market), await login(market, "buyer")
        me = person(market, mine)
        change = g.ChangePasswordRequest(
            request_id=str(new_uuid()), old_password=PASSWORD, new_password=OTHER
        )
        wrong = g.ChangePasswordRequest(
            request_id=str(new_uuid()), old_password="guessed", new_password=OTHER
        )
        assert await refused_as(me.ask(me.sessions.ChangePassword, wrong)) == "FORBIDDEN"
        for _ in range(2):
            await me.ask(me.sessions.ChangePassword, change)
        assert await is_good(market, mine)
        assert not await is_good(market, other)
        assert await refused_as(login(market, "buyer")) == "UNAUTHENTICATED"
        await login(market, "buyer", OTHER)
        # An account with tokens alone gets none by itself: who steals a token would stay for ever.
        seller = market.seller
        assert await refused_as(seller.ask(seller.sessions.ChangePassword, change)) == "FORBIDDEN"

    play(script)


def test_no_secret_is_in_the_database_the_log_or_the_acts(
    play: Play, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    secrets: list[str] = []

    async def script(market: Running) -> None:
        secret = await invitation(market, "buyer")
        first = await accept(market, secret)
        second = await refresh(market, first.refresh_token)
        me = person(market, second)
        change = g.ChangePasswordRequest(
            request_id=str(new_uuid()), old_password=PASSWORD, new_password=OTHER
        )
        await me.ask(me.sessions.ChangePassword, change)
        await refused(login(market, "buyer", "guessed-canary"))
        secrets.extend([secret, PASSWORD, OTHER, "guessed-canary"])
        secrets.extend([first.access_token, first.refresh_token, second.refresh_token])
        kept = await acts(market)
        told = "".join(str(act) for act in kept)
        assert "AcceptInvitation" in told
        assert "ChangePassword" in told
        assert not [secret for secret in secrets if secret in told]

    with caplog.at_level(logging.DEBUG):
        play(script)
    for path in [path for path in (tmp_path / "data").iterdir() if path.is_file()]:
        raw = path.read_bytes()
        assert not [secret for secret in secrets if secret.encode() in raw], path
    assert not [secret for secret in secrets if secret in caplog.text]


def test_a_password_is_hashed_anew_when_the_operator_raises_its_cost(play: Play) -> None:
    async def script(market: Running) -> None:
        await signed_in(market)
        await market.halt()
        market.settings = replace(market.settings, password_passes=2)
        await market.serve()
        assert "t=1" in await _hash(market)
        await login(market, "buyer")
        assert "t=2" in await _hash(market)
        await login(market, "buyer")

    play(script)


async def _hash(market: Running) -> str:
    def look(tx: Any) -> str:
        hash_ = tx.password_of(tx.account_named("buyer").id)
        assert isinstance(hash_, str)
        assert hash_.startswith("$argon2id$")
        return hash_

    assert market.database is not None
    return await asyncio.wrap_future(market.database.read(look))


def test_an_account_has_at_most_so_many_sessions(play: Play) -> None:
    async def script(market: Running) -> None:
        first = await signed_in(market)
        for _ in range(100):
            await login(market, "buyer")
        assert not await is_good(market, first), "the one that was not renewed for longest makes room"
        me = person(market, await login(market, "buyer"))
        listed = (await me.ask(me.sessions.ListSessions, g.ListSessionsRequest())).sessions
        assert len(listed) == 100

    play(script)
