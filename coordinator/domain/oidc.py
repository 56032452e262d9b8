"""Who comes with a token of the operator's identity provider: what it claims, if its signature is right."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from coordinator.domain.account import Role, Scope, scopes_named

# Signed with a key that only the provider has: whoever may check such a token can't make one.
ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)
SUBJECT_BYTES_MAX = 255
# In a scope map: for everybody whom the provider knows.
ANYBODY = "*"
_NAME_MAX = 48
_NO_NAME = re.compile(r"[^a-z0-9]+")
ScopeMap = Mapping[str, frozenset[Scope]]


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What the operator has set of the provider."""

    issuer: str
    audience: str
    leeway_s: int
    scope_claim: str
    # Empty: the claim has our own words.
    scope_map: ScopeMap
    name_claim: str
    # Of accounts that are made by themselves; none: the operator binds each.
    roles: frozenset[Role]


@dataclass(frozen=True, kw_only=True)
class Visitor:
    """Whom a token stands for, by the provider's word."""

    subject: str
    scopes: frozenset[Scope]
    expires_ms: int
    # What an account that is made for it would be called.
    name: str


def visitor_of(claims: Mapping[str, object], terms: Terms, now_ms: int) -> Visitor | str:
    """Or why it is refused."""
    if claims.get("iss") != terms.issuer:
        return "it is of another issuer"
    if terms.audience not in _words(claims.get("aud"), split=False):
        return "it is for another audience"
    expires_s, not_before_s, issued_s = (_seconds(claims.get(name)) for name in ("exp", "nbf", "iat"))
    now_s = now_ms // 1_000
    if expires_s is None:
        return "it has no end"
    if now_s >= expires_s + terms.leeway_s:
        return "it has expired"
    if "nbf" in claims and (not_before_s is None or now_s < not_before_s - terms.leeway_s):
        return "it is not good yet"
    if "iat" in claims and (issued_s is None or now_s < issued_s - terms.leeway_s):
        return "it was issued in the future"
    subject = claims.get("sub")
    if not isinstance(subject, str) or not is_subject(subject):
        return "it names no subject"
    return Visitor(
        subject=subject,
        scopes=_scopes(_words(claims.get(terms.scope_claim), split=True), terms.scope_map),
        expires_ms=(expires_s + terms.leeway_s) * 1_000,
        name=_name(claims.get(terms.name_claim), subject),
    )


def is_subject(text: str) -> bool:
    return text.isprintable() and 1 <= len(text.encode()) <= SUBJECT_BYTES_MAX


def scope_map_of(text: str) -> ScopeMap:
    """Of "staff=admin:*,jobs:* *=jobs:read": the provider's words to scopes of ours. Raises ValueError."""
    found: dict[str, frozenset[Scope]] = {}
    for entry in text.split():
        word, equals, names = entry.rpartition("=")
        if not (word and equals):
            raise ValueError(f"WORD=SCOPE,SCOPE with blanks between, not {entry!r}")
        scopes = found.get(word, frozenset())
        for name in names.split(","):
            if not scopes_named(name):
                raise ValueError(
                    f"{name!r} is no scope; there are {', '.join(Scope)}, and jobs:* and the like"
                )
            scopes |= scopes_named(name)
        found[word] = scopes
    return found


def is_safe(url: str) -> bool:
    """Over TLS, or on this very machine."""
    place = urlsplit(url)
    local = place.scheme == "http" and place.hostname in {"127.0.0.1", "::1", "localhost"}
    return bool(place.hostname) and (place.scheme == "https" or local)


def second_name(name: str, subject: str) -> str:
    """For the second whom the provider calls so."""
    return f"{name}-{_short_digest(subject)}"


def _scopes(words: Sequence[str], scope_map: ScopeMap) -> frozenset[Scope]:
    scopes = frozenset[Scope]()
    for word in words:
        scopes |= scope_map.get(word, frozenset()) if scope_map else scopes_named(word)
    return scopes | scope_map.get(ANYBODY, frozenset())


def _words(claim: object, *, split: bool) -> list[str]:
    """A list of words, or one text, which may hold several with blanks between."""
    if isinstance(claim, str):
        return claim.split() if split else [claim]
    return [word for word in claim if isinstance(word, str)] if isinstance(claim, list) else []


def _seconds(claim: object) -> int | None:
    """As the standard has it, a number, perhaps with a fraction, which is left out."""
    if isinstance(claim, bool) or not isinstance(claim, int | float) or not 0 <= claim < 2**40:
        return None
    return int(claim)


def _name(claim: object, subject: str) -> str:
    wished = claim.partition("@")[0].lower() if isinstance(claim, str) else ""
    return _NO_NAME.sub("-", wished).strip("-")[:_NAME_MAX].strip("-") or f"oidc-{_short_digest(subject)}"


def _short_digest(subject: str) -> str:
    return hashlib.sha256(subject.encode()).hexdigest()[:8]
