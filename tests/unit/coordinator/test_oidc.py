"""Claims of an identity provider's token: who is let in, as whom, for what; and whose keys are believed."""

import asyncio
import re

import pytest

from coordinator.api.jwks import ASK_EVERY_MS, FRESH_MS, STALE_MS, Jwks, Key, Trouble, keys_of
from coordinator.domain.account import Role, Scope
from coordinator.domain.oidc import Terms, Visitor, is_safe, scope_map_of, second_name, visitor_of

NOW_S = 1_700_000_000
TERMS = Terms(
    issuer="https://id.example.org",
    audience="usance",
    leeway_s=30,
    scope_claim="scope",
    scope_map={},
    name_claim="preferred_username",
    roles=frozenset({Role.BUYER}),
)
GOOD = {"iss": TERMS.issuer, "aud": "usance", "sub": "somebody", "exp": NOW_S + 60}


def visitor(terms: Terms = TERMS, **claims: object) -> Visitor | str:
    return visitor_of({**GOOD, **claims}, terms, NOW_S * 1_000)


def test_a_good_token_is_a_visitor():
    found = visitor(scope="jobs:read wallet:* nonsense openid", preferred_username="Ann.Lee@example.org")
    assert found == Visitor(
        subject="somebody",
        scopes=frozenset({Scope.JOBS_READ, Scope.WALLET_READ, Scope.WALLET_WRITE}),
        expires_ms=(NOW_S + 90) * 1_000,
        name="ann-lee",
    )


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"iss": "https://id.example.org/"}, "another issuer"),
        ({"iss": ["https://id.example.org"]}, "another issuer"),
        ({"aud": "usance-other"}, "another audience"),
        ({"aud": "usance other"}, "another audience"),
        ({"aud": []}, "another audience"),
        ({"aud": {"usance": 1}}, "another audience"),
        ({"exp": NOW_S - 30}, "expired"),
        ({"exp": None}, "no end"),
        ({"exp": "9999999999"}, "no end"),
        ({"exp": True}, "no end"),
        ({"exp": float("inf")}, "no end"),
        ({"exp": float("nan")}, "no end"),
        ({"nbf": NOW_S + 31}, "not good yet"),
        ({"nbf": "soon"}, "not good yet"),
        ({"iat": NOW_S + 31}, "in the future"),
        ({"iat": None}, "in the future"),
        ({"sub": ""}, "no subject"),
        ({"sub": 7}, "no subject"),
        ({"sub": "x" * 256}, "no subject"),
        ({"sub": "a\nb"}, "no subject"),
    ],
)
def test_what_is_not_for_us_or_not_now_is_refused(claims, why):
    said = visitor(**claims)
    assert isinstance(said, str)
    assert why in said


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": NOW_S - 29},
        {"exp": NOW_S + 0.5},
        {"nbf": NOW_S + 30, "iat": NOW_S + 30},
        {"aud": ["other", "usance"]},
    ],
)
def test_clocks_may_differ_a_little_and_audiences_be_several(claims):
    assert isinstance(visitor(**claims), Visitor)


def test_the_operators_words_open_what_the_operator_says():
    scope_map = scope_map_of("staff=admin:* gpu-users=jobs:*,wallet:read gpu-users=hosts:read *=tokens:read")
    terms = Terms(**{**vars(TERMS), "scope_map": scope_map, "scope_claim": "groups"})

    def scopes(groups: object) -> frozenset[Scope]:
        found = visitor(terms, groups=groups)
        assert isinstance(found, Visitor)
        return found.scopes

    assert scopes(["gpu-users", "admin:write", 7]) == {
        Scope.JOBS_READ,
        Scope.JOBS_WRITE,
        Scope.WALLET_READ,
        Scope.HOSTS_READ,
        Scope.TOKENS_READ,
    }
    assert scopes(None) == scopes("admin:*") == {Scope.TOKENS_READ}
    assert scopes("staff more") == {Scope.TOKENS_READ, Scope.ADMIN_READ, Scope.ADMIN_WRITE}


@pytest.mark.parametrize("text", ["staff", "=jobs:read", "staff=", "staff=jobs:all", "a=jobs:read,"])
def test_a_map_that_means_nothing_is_refused(text):
    with pytest.raises(ValueError, match=r"scope|SCOPE"):
        scope_map_of(text)


@pytest.mark.parametrize(
    ("claim", "name"),
    [
        ("Ann.Lee@example.org", "ann-lee"),
        ("--", "oidc-[0-9a-f]{8}"),
        (None, "oidc-[0-9a-f]{8}"),
        ("\u00e9" * 99, "oidc-[0-9a-f]{8}"),
        ("x" * 99, "x{48}"),
    ],
)
def test_an_account_is_named_for_whom_it_is(claim, name):
    found = visitor(sub="subject-1", preferred_username=claim)
    assert isinstance(found, Visitor)
    assert re.fullmatch(name, found.name)
    assert re.fullmatch(f"{name}-[0-9a-f]{{8}}", second_name(found.name, "subject-1"))


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("https://id.example.org/a", True),
        ("http://127.0.0.1:8/", True),
        ("http://localhost/x", True),
        ("http://id.example.org", False),
        ("http://127.0.0.1.example.org", False),
        ("file:///etc/passwd", False),
        ("https://", False),
        ("", False),
    ],
)
def test_keys_come_over_tls_or_from_this_machine(url, good):
    assert is_safe(url) is good


def test_what_is_no_key_to_check_signatures_with_is_none():
    octets = {"kty": "oct", "kid": "o", "k": "c2VjcmV0"}
    okp = {"kty": "OKP", "crv": "Ed25519", "kid": "e", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    found = keys_of(
        {"keys": [octets, {**okp, "use": "enc", "kid": "x"}, okp, {"kty": "RSA"}, {**okp, "kid": 7}, 7]}
    )
    assert set(found) == {"e"}
    assert keys_of({}) == keys_of({"keys": "x"}) == {}


class Provided:
    """A provider whose answers the test gives."""

    boot_id = "b"
    now_ms, asked = 1_000, 0

    def __init__(self, *names: str) -> None:
        self.names: tuple[str, ...] | None = names
        self.held = asyncio.Event()
        self.held.set()

    def boot_ms(self) -> int:
        return self.now_ms

    wall_ms = boot_ms

    async def sleep_ms(self, duration_ms: int) -> None:
        raise AssertionError(duration_ms)

    async def __call__(self) -> dict[str, Key]:
        self.asked += 1
        await self.held.wait()
        if self.names is None:
            raise Trouble("it is away")
        return {name: Key(value=name, algorithm="") for name in self.names}


def test_keys_are_had_once_again_when_they_change_and_not_oftener_than_once_a_minute():
    async def scene() -> None:
        provided = Provided("old")
        jwks = Jwks(provided, provided)
        assert await jwks.key("old") is not None
        assert (await jwks.key("old"), provided.asked) == (Key(value="old", algorithm=""), 1)
        # Whoever names unknown keys makes us ask no oftener.
        for _ in range(50):
            assert await jwks.key("unknown") is None
        assert provided.asked == 1
        provided.now_ms += ASK_EVERY_MS
        provided.names = ("old", "new")
        provided.held.clear()
        asking = [asyncio.create_task(jwks.key("new")) for _ in range(50)]
        await asyncio.sleep(0)
        provided.held.set()
        assert None not in await asyncio.gather(*asking)
        assert provided.asked == 2
        # What the provider has taken back is refused when it is looked at next.
        provided.names = ("new",)
        provided.now_ms += FRESH_MS
        assert await jwks.key("old") is None
        assert provided.asked == 3

    asyncio.run(scene())


def test_a_provider_that_is_away_leaves_its_keys_good_for_a_while():
    async def scene() -> None:
        provided = Provided("old")
        jwks = Jwks(provided, provided)
        assert await jwks.key("old") is not None
        provided.names = None
        provided.now_ms += FRESH_MS
        assert await jwks.key("old") is not None
        assert await jwks.key("old") is not None
        assert provided.asked == 2
        provided.now_ms += STALE_MS
        assert await jwks.key("old") is None

    asyncio.run(scene())
