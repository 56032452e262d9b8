"""Tokens of an operator's own identity provider: a real one on loopback, whose keys change."""

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from coordinator.settings import Settings
from runtime.ids import new_uuid
from tests.support.identity_provider import AUDIENCE, IdentityProvider, public_pem, sign
from tests.support.running_coordinator import Person, Running, job_spec
from tests.support.scripts import Play
from tests.support.signing_in import cheap, refused, refused_as
from usance.v1 import books_pb2 as b
from usance.v1 import login_pb2 as g
from usance.v1 import market_pb2 as m

SELF = m.GetSelfRequest()
HOUR_S = 3_600


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[IdentityProvider]:
    made = IdentityProvider(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def template(template: Settings, provider: IdentityProvider) -> Settings:
    return cheap(
        template,
        oidc_issuer=provider.issuer,
        oidc_audience=AUDIENCE,
        oidc_ca=str(provider.ca),
        oidc_algorithms="RS256 ES256",
        oidc_scope_map="gpu-users=jobs:* staff=admin:*",
        bad_tokens_burst=1_000,
    )


def claims(market: Running, provider: IdentityProvider, **others: Any) -> dict[str, Any]:
    now_s = market.clock.wall_ms() // 1_000
    usual = {
        "iss": provider.issuer,
        "aud": AUDIENCE,
        "sub": "ann",
        "iat": now_s,
        "exp": now_s + HOUR_S,
        "scope": "gpu-users",
    }
    return {**usual, **others}


def somebody(market: Running, token: str) -> Person:
    return Person(market.channel, token)


async def says(market: Running, token: str) -> str:
    """What somebody with this token is told."""
    one = somebody(market, token)
    return str((await refused(one.ask(one.account.GetSelf, SELF))).details())


async def bind(market: Running, name: str, subject: str) -> None:
    request = g.BindSubjectRequest(request_id=str(new_uuid()), account_name=name, subject=subject)
    await market.operator.ask(market.operator.people.BindSubject, request)


def test_whom_the_operator_has_bound_is_that_account_until_released(
    play: Play, provider: IdentityProvider
) -> None:
    async def script(market: Running) -> None:
        token = provider.token(**claims(market, provider))
        assert "ask the operator" in await says(market, token)
        await bind(market, "buyer", "ann")
        ann = somebody(market, token)
        account = (await ann.ask(ann.account.GetSelf, SELF)).account
        assert account.name == "buyer"
        # It opens what the map says, and makes nothing that opens more or lasts longer.
        await ann.submit()
        refusal = await refused_as(ann.ask(ann.account.GetWallet, m.GetWalletRequest()))
        assert refusal == "FORBIDDEN"
        create = b.CreateOwnTokenRequest(request_id=str(new_uuid()))
        assert await refused_as(ann.ask(ann.tokens.CreateOwnToken, create)) == "FORBIDDEN"
        # Not what the account is not, whatever the provider says.
        boss = somebody(market, provider.token(**claims(market, provider, scope="staff gpu-users")))
        balance = boss.ask(boss.admin.GetTrialBalance, m.GetTrialBalanceRequest())
        assert await refused_as(balance) == "FORBIDDEN"
        # Each act says whose it was and by which token.
        acts = (await market.operator.ask(market.operator.operations.ListActs, b.ListActsRequest())).acts
        (submitted,) = [act for act in acts if act.rpc == "MarketService/SubmitJob"]
        assert submitted.token_id.startswith("jwt_")
        # Bound is bound once.
        again = g.BindSubjectRequest(request_id=str(new_uuid()), account_name="seller", subject="ann")
        operator = market.operator
        assert await refused_as(operator.ask(operator.people.BindSubject, again)) == "NAME_TAKEN"
        subjects = (await operator.ask(operator.people.ListSubjects, g.ListSubjectsRequest())).subjects
        assert [(one.subject, one.account_name, one.issuer) for one in subjects] == [
            ("ann", "buyer", provider.issuer)
        ]
        # Released at once, also for a token that was good a moment ago.
        release = g.ReleaseSubjectRequest(request_id=str(new_uuid()), subject="ann")
        for _ in range(2):
            answer = await operator.ask(operator.people.ReleaseSubject, release)
            assert answer.account_name == "buyer"
        assert "ask the operator" in await says(market, token)
        release.request_id = str(new_uuid())
        assert await refused_as(operator.ask(operator.people.ReleaseSubject, release)) == "NOT_FOUND"

    play(script)


def b64(content: Any) -> str:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


@pytest.mark.parametrize(
    ("others", "why"),
    [
        ({"iss": "https://evil.example.org"}, "another issuer"),
        ({"aud": "another-service"}, "another audience"),
        ({"iat": 1, "exp": 2}, "expired"),
        ({"nbf": 2**39}, "not good yet"),
    ],
    ids=["issuer", "audience", "expired", "not yet"],
)
def test_what_is_not_meant_for_us_is_refused(
    play: Play, provider: IdentityProvider, others: dict[str, Any], why: str
) -> None:
    async def script(market: Running) -> None:
        await bind(market, "buyer", "ann")
        assert why in await says(market, provider.token(**claims(market, provider, **others)))

    play(script)


def test_a_token_that_was_good_is_refused_when_its_time_is_over(
    play: Play, provider: IdentityProvider
) -> None:
    async def script(market: Running) -> None:
        await bind(market, "buyer", "ann")
        ann = somebody(market, provider.token(**claims(market, provider)))
        await ann.ask(ann.account.GetSelf, SELF)
        market.clock.advance((HOUR_S + 30) * 1_000)
        assert await refused_as(ann.ask(ann.account.GetSelf, SELF)) == "UNAUTHENTICATED"

    play(script)


def test_whoever_has_not_the_providers_key_signs_nothing(play: Play, provider: IdentityProvider) -> None:
    async def script(market: Running) -> None:
        await bind(market, "buyer", "ann")
        mine = claims(market, provider)
        good = provider.token(**mine)
        header, payload, signature = good.split(".")
        # Nobody's signature.
        none = b64({"alg": "none", "kid": "first"})
        for forged in (f"{none}.{payload}.", f"{none}.{payload}.{signature}"):
            assert "not signed in a way" in await says(market, forged)
        # The public key, which everybody knows, as an HMAC's secret.
        hs256 = b64({"alg": "HS256", "kid": "first"})
        public = provider.keys["first"]
        for secret in (public_pem(public), json.dumps(provider.jwks["keys"][0]).encode()):
            mac = hmac.new(secret, f"{hs256}.{payload}".encode(), hashlib.sha256).digest()
            assert "not signed in a way" in await says(market, f"{hs256}.{payload}.{b64(mac)}")
        # A key of one's own, under the provider's name, and one that the token itself brings along.
        own = ec.generate_private_key(ec.SECP256R1())
        assert "signature is not right" in await says(market, sign(own, "ES256", "first", **mine))
        assert "by no key" in await says(market, sign(own, "ES256", "mine", **mine))
        assert "by no key" in await says(market, sign(own, "ES256", None, **mine))
        # Another algorithm than the key is for; one that is not set; a header that asks for more.
        assert "signature is not right" in await says(
            market, f"{b64({'alg': 'RS256', 'kid': 'first'})}.{payload}.{signature}"
        )
        assert "not signed in a way" in await says(
            market, f"{b64({'alg': 'ES512', 'kid': 'first'})}.{payload}.{signature}"
        )
        asks = b64({"alg": "ES256", "kid": "first", "crit": ["b64"], "b64": False})
        assert "refused" in await says(market, f"{asks}.{payload}.{signature}")
        # Other claims under a good signature.
        more = b64({**mine, "sub": "operator"})
        assert "signature is not right" in await says(market, f"{header}.{more}.{signature}")
        for nonsense in ("a.b.c", "..", f"{header}.{payload}.", f"x{good}"):
            assert "refused" in await says(market, nonsense)
        ann = somebody(market, good)
        await ann.ask(ann.account.GetSelf, SELF)

    play(script)


def test_keys_that_change_are_followed_and_asked_for_at_most_once_a_minute(
    play: Play, provider: IdentityProvider
) -> None:
    async def script(market: Running) -> None:
        await bind(market, "buyer", "ann")
        first = provider.token(**claims(market, provider))
        ann = somebody(market, first)
        await ann.ask(ann.account.GetSelf, SELF)
        assert provider.asked == ["/.well-known/openid-configuration", "/keys"]
        # A new key beside the old one, of another kind.
        provider.rotate("first", "rsa-second")
        second = provider.token("rsa-second", **claims(market, provider))
        assert "by no key" in await says(market, second), "asked a moment ago"
        market.clock.advance(60_000)
        new_ann = somebody(market, second)
        await new_ann.ask(new_ann.account.GetSelf, SELF)
        assert provider.asked.count("/keys") == 2
        for number in range(20):
            unknown = sign(provider.keys["first"], "ES256", f"no-{number}", **claims(market, provider))
            assert "by no key" in await says(market, unknown)
        assert provider.asked.count("/keys") == 2
        # The old one is taken back: it is refused as soon as keys are looked up again.
        provider.rotate("rsa-second")
        market.clock.advance(600_000)
        assert "by no key" in await says(market, first)
        await new_ann.ask(new_ann.account.GetSelf, SELF)

    play(script)


DISCOVERY = "/.well-known/openid-configuration"
NO_GOOD: list[tuple[str, tuple[int, bytes, dict[str, str]]]] = [
    (DISCOVERY, (200, b'{"issuer": "https://evil.example.org"}', {})),
    (DISCOVERY, (302, b"", {"Location": "/keys"})),
    ("/keys", (500, b"", {})),
    ("/keys", (200, b"no json", {})),
    ("/keys", (200, b"[]", {})),
    ("/keys", (200, b" " * 300_000 + b"{}", {})),
    # These two were taken for faults of our own.
    ("/keys", (200, b"[" * 200_000, {})),
    ("/keys", (200, b"{}", {"X-Long": "x" * 70_000})),
]


def test_a_provider_whose_answer_is_no_good_vouches_for_nobody(
    play: Play, provider: IdentityProvider, caplog: pytest.LogCaptureFixture
) -> None:
    async def script(market: Running) -> None:
        await bind(market, "buyer", "ann")
        for path, answer in NO_GOOD:
            provider.instead = {path: answer}
            caplog.clear()
            assert "by no key" in await says(market, provider.token(**claims(market, provider)))
            assert "the identity provider's keys can't be had" in caplog.text
            # Whoever has our own tokens does not notice.
            await market.buyer.ask(market.buyer.account.GetSelf, SELF)
            market.clock.advance(60_000)
        # It comes to its senses.
        provider.instead = {}
        ann = somebody(market, provider.token(**claims(market, provider)))
        await ann.ask(ann.account.GetSelf, SELF)

    play(script)


class TestAccountsThatMakeThemselves:
    @pytest.fixture
    def template(self, template: Settings) -> Settings:
        return cheap(template, oidc_new_accounts="buyer", oidc_scope_map="*=jobs:*")

    def test_the_first_visit_makes_one(self, play: Play, provider: IdentityProvider) -> None:
        async def script(market: Running) -> None:
            named = claims(market, provider, preferred_username="Ann.Lee@example.org")
            ann = somebody(market, provider.token(**named))
            account = (await ann.ask(ann.account.GetSelf, SELF)).account
            assert (account.name, list(account.roles)) == ("ann-lee", [1])
            # Again, the same; another who is called so, another; one who is called like an account, not it.
            again = somebody(market, provider.token(**{**named, "exp": named["exp"] + 1}))
            assert (await again.ask(again.account.GetSelf, SELF)).account.account_id == account.account_id
            for subject, name in (("second", "ann-lee"), ("third", "operator")):
                given = claims(market, provider, sub=subject, preferred_username=name)
                other = somebody(market, provider.token(**given))
                found = (await other.ask(other.account.GetSelf, SELF)).account
                assert found.name.startswith(f"{name}-")
                assert found.account_id != account.account_id
                assert list(found.roles) == [1]
            spec = m.SubmitJobRequest(request_id=str(new_uuid()), spec=job_spec())
            assert await refused_as(ann.ask(ann.market.SubmitJob, spec)) == "INSUFFICIENT_FUNDS"

        play(script)
