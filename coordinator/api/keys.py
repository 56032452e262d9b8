"""Whose tokens came of late: a caller with a thousand calls is looked up once, not a thousand times.

A revocation is rung for when it is committed, before whoever asked for it is told: what was kept goes then,
and what is being looked up is not kept. A token's end by time holds at most a second later.
"""

import hashlib

from coordinator.api.bell import Bell
from coordinator.api.edge import Store
from coordinator.api.inbox import Inbox
from coordinator.api.oidc import Provider, is_jwt
from coordinator.domain.account import Bearer
from coordinator.services import accounts
from coordinator.services.tokens import TOKENS_TOPIC
from coordinator.store.ports import Held
from runtime.clock import Clock

KEPT_MS = 1_000
KEPT_MAX = 10_000


class Keys:
    def __init__(self, store: Store, clock: Clock, bell: Bell, provider: Provider | None = None) -> None:
        self._store, self._clock, self._inbox = store, clock, Inbox()
        # Of identities, where the operator has one.
        self._provider = provider
        # By the token's digest: whose it is, and when that was looked up.
        self._kept: dict[bytes, tuple[Bearer, int]] = {}
        bell.tells(TOKENS_TOPIC, self)

    async def owner(self, token: str) -> Bearer:
        """Raises Refusal."""
        key, now_ms = hashlib.sha256(token.encode()).digest(), self._clock.wall_ms()
        kept, looked_up_ms = self._kept.get(key, (None, 0))
        if kept is not None and abs(now_ms - looked_up_ms) < KEPT_MS:
            return kept
        before = self._kept
        if self._provider is not None and is_jwt(token):
            bearer = await self._provider.owner(token)
        else:
            asked = self._store.gather_read(accounts.authenticate, (token, now_ms))
            bearer = accounts.known(await self._inbox.awaited(asked))
        if before is self._kept:
            if len(self._kept) >= KEPT_MAX:
                self._kept.clear()
            self._kept[key] = bearer, now_ms
        return bearer

    def rung(self, held: Held | None) -> None:  # noqa: ARG002 - no host's
        self._kept = {}
