"""Bearer tokens of the operator's own identity provider: signed by a key of its, meant for us, good now."""

import hashlib
from collections.abc import Sequence
from typing import Any

import jwt

from coordinator.api.edge import Store
from coordinator.api.inbox import Inbox
from coordinator.api.jwks import Jwks
from coordinator.domain.account import Bearer
from coordinator.domain.oidc import Terms, visitor_of
from coordinator.domain.refusal import Refusal, RefusalCode
from coordinator.services import subjects
from runtime.clock import Clock

TOKEN_BYTES_MAX = 8_192
_NAMED_BYTES = 8
# What is claimed is looked at by `domain.oidc`, by our own clock.
_CLAIMS = ("exp", "nbf", "iat", "aud", "iss", "sub", "jti")
_SIGNATURE_ALONE: Any = {f"verify_{claim}": False for claim in _CLAIMS}


class Provider:
    def __init__(
        self, terms: Terms, algorithms: Sequence[str], jwks: Jwks, store: Store, clock: Clock
    ) -> None:
        self._terms, self._algorithms, self._jwks = terms, list(algorithms), jwks
        self._store, self._clock, self._inbox = store, clock, Inbox()

    async def owner(self, token: str) -> Bearer:
        """Raises Refusal."""
        visitor = visitor_of(await self._claims(token), self._terms, self._clock.wall_ms())
        if isinstance(visitor, str):
            raise _refused(visitor)
        came = subjects.Came(issuer=self._terms.issuer, visitor=visitor)
        account = await self._inbox.awaited(self._store.gather_read(subjects.accounts_of, came))
        if account is None:
            if not self._terms.roles:
                raise subjects.unbound()
            now_ms, roles = self._clock.wall_ms(), self._terms.roles
            account = await self._inbox.awaited(
                self._store.write(lambda tx: subjects.make(tx, came, roles, now_ms))
            )
        name = hashlib.sha256(token.encode()).hexdigest()[: 2 * _NAMED_BYTES]
        return Bearer(
            account=account, token_id=f"jwt_{name}", expires_ms=visitor.expires_ms, scopes=visitor.scopes
        )

    async def _claims(self, token: str) -> dict[str, Any]:
        """What the provider has signed.

        The algorithm is one that is set and the key's own, never the token's word alone: a public key is no
        secret that an HMAC could be checked with.
        """
        if len(token) > TOKEN_BYTES_MAX:
            raise _refused("it is too long")
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError:
            raise _refused("it is no JWT") from None
        algorithm = header.get("alg")
        if algorithm not in self._algorithms or "crit" in header:
            raise _refused("it is not signed in a way that the operator allows")
        key_id = header.get("kid")
        key = await self._jwks.key(key_id) if isinstance(key_id, str) else None
        if key is None or key.algorithm not in {"", algorithm}:
            raise _refused("it is signed by no key of the identity provider")
        try:
            claims: dict[str, Any] = jwt.decode(
                token, key.value, algorithms=[algorithm], options=_SIGNATURE_ALONE
            )
        except (jwt.PyJWTError, ValueError, TypeError):
            raise _refused("its signature is not right") from None
        return claims


def is_jwt(token: str) -> bool:
    """Three parts, as none of our own tokens has."""
    return token.count(".") == 2


def _refused(why: str) -> Refusal:
    return Refusal(RefusalCode.UNAUTHENTICATED, f"the identity provider's token is refused: {why}")
