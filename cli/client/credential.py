"""What our calls come with: a token, or a session that is renewed before it is over.

Several programs of one user may have the same session at once. A refresh token is good once, so one of them
renews at a time, and the others take what it has kept.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from cli.connection import SessionStore, SessionTokens
from cli.errors import WrongUse
from runtime.clock import Clock
from runtime.ids import new_uuid

# Before its end: a call takes some time to arrive, and clocks differ.
MARGIN_MS = 20_000
_LOOK_EVERY_MS, _LOOKS_MAX = 50, 1_200
# The answer that we ask for again may be as good as over; the next one is not.
_RENEWALS_MAX = 3

# The refresh token and the request's id to the tokens that follow.
Renew = Callable[[str, str], Awaitable[SessionTokens]]


class Credential:
    def __init__(self, token: str, store: SessionStore | None, renew: Renew, clock: Clock) -> None:
        self._store, self._renew, self._clock = store, renew, clock
        kept = store.read() if store is not None else None
        self._token = kept.access_token if kept is not None else token
        self._good_until_ms = kept.good_until_ms if kept is not None else 0
        self._turn = asyncio.Lock()

    async def token(self) -> str:
        """Good now, as far as we know."""
        if self._store is None:
            return self._token
        for _ in range(_RENEWALS_MAX):
            if self._clock.wall_ms() < self._good_until_ms - MARGIN_MS:
                break
            await self._renewed(self._store, self._token)
        return self._token

    def distrust(self, token: str) -> bool:
        """It was refused. Is there hope of another?"""
        if self._store is not None and self._token == token:
            self._good_until_ms = 0
        return self._store is not None

    async def _renewed(self, store: SessionStore, stale: str) -> None:
        async with self._turn:
            if self._token != stale:
                return
            async with self._alone(store):
                kept = store.read()
                if kept is None:
                    raise WrongUse("you have signed out meanwhile: run `usance login`")
                if kept.access_token == stale:
                    # Kept before it is sent: whatever becomes of us, the answer can be had again.
                    request_id = kept.renewing or str(new_uuid())
                    store.write(replace(kept, renewing=request_id))
                    kept = await self._renew(kept.refresh_token, request_id)
                    store.write(kept)
                self._token, self._good_until_ms = kept.access_token, kept.good_until_ms

    @asynccontextmanager
    async def _alone(self, store: SessionStore) -> AsyncIterator[None]:
        """Asked for again and again: who waited in a thread could not be cancelled."""
        for _ in range(_LOOKS_MAX):
            with store.alone() as is_ours:
                if is_ours:
                    yield
                    return
            await self._clock.sleep_ms(_LOOK_EVERY_MS)
        raise WrongUse("another program has held the profiles for a minute; is it stopped?")
