"""The public keys of the operator's identity provider: kept for a while, and had again when they change."""

import asyncio
import json
import logging
import ssl
import urllib.request
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, Protocol
from urllib.error import HTTPError

import jwt

from coordinator.domain.oidc import ALGORITHMS, is_safe
from runtime.clock import Clock

_LOG = logging.getLogger(__name__)
# How long keys are used without a look whether they still are; how long in all where the provider can't be
# reached; and how often, at most, we ask it.
FRESH_MS, STALE_MS, ASK_EVERY_MS = 600_000, 3_600_000, 60_000
ANSWER_BYTES_MAX, TIMEOUT_S = 262_144, 5.0
KEYS_MAX = 64
_DISCOVERY = "/.well-known/openid-configuration"


@dataclass(frozen=True, kw_only=True)
class Key:
    """A public key, and the one algorithm that it is for, where the provider says so."""

    value: Any
    algorithm: str


Keys = Mapping[str, Key]


class Trouble(Exception):  # noqa: N818 - told to the operator, in the log
    """The provider's answer is none, or is no good."""


class KeySource(Protocol):
    def __call__(self) -> Awaitable[Keys]:
        """Raises Trouble."""
        ...


class Jwks:
    def __init__(self, fetch: KeySource, clock: Clock) -> None:
        self._fetch, self._clock = fetch, clock
        self._keys: Keys = {}
        self._had_ms: int | None = None
        self._asked_ms: int | None = None
        self._asking: asyncio.Task[None] | None = None

    async def key(self, key_id: str) -> Key | None:
        """None: the provider has no such key, as far as we may know."""
        if not self._is_younger(FRESH_MS) or key_id not in self._keys:
            await self._ask()
        return self._keys.get(key_id) if self._is_younger(STALE_MS) else None

    def _is_younger(self, age_ms: int) -> bool:
        return self._had_ms is not None and self._clock.boot_ms() - self._had_ms < age_ms

    async def _ask(self) -> None:
        """Once for all who wait, and not again soon: whoever names unknown keys makes us ask no oftener."""
        now_ms = self._clock.boot_ms()
        if self._asking is None:
            if self._asked_ms is not None and now_ms - self._asked_ms < ASK_EVERY_MS:
                return
            self._asked_ms = now_ms
            self._asking = asyncio.create_task(self._had())
        await asyncio.shield(self._asking)

    async def _had(self) -> None:
        try:
            self._keys = await self._fetch()
            self._had_ms = self._clock.boot_ms()
        except Trouble as trouble:
            _LOG.warning("the identity provider's keys can't be had: %s", trouble)
        finally:
            self._asking = None


def over_http(issuer: str, jwks_url: str, authority: str) -> KeySource:
    """The keys at that address, or, where none is set, at the one that the issuer's own document names."""
    trust = ssl.create_default_context(cafile=authority or None)
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=trust), _Stay())

    def get(url: str) -> dict[str, Any]:
        try:
            with opener.open(_checked(url), timeout=TIMEOUT_S) as answer:
                raw = answer.read(ANSWER_BYTES_MAX + 1)
            content = json.loads(raw) if len(raw) <= ANSWER_BYTES_MAX else None
        # The last two: an answer that is no HTTP, and JSON that is too deep.
        except (OSError, ValueError, HTTPException, RecursionError) as error:
            raise Trouble(f"{url}: {error}") from error
        if not isinstance(content, dict):
            raise Trouble(f"{url}: no JSON object of at most {ANSWER_BYTES_MAX} bytes")
        return content

    def whole() -> Keys:
        url = jwks_url
        if not url:
            document = get(issuer.rstrip("/") + _DISCOVERY)
            if document.get("issuer") != issuer:
                raise Trouble(f"{issuer}{_DISCOVERY} is of the issuer {document.get('issuer')!r}")
            url = str(document.get("jwks_uri"))
        return keys_of(get(url))

    async def fetch() -> Keys:
        return await asyncio.to_thread(whole)

    return fetch


def keys_of(content: Mapping[str, Any]) -> Keys:
    """Those that signatures can be checked with; what we can't read is none."""
    found: dict[str, Key] = {}
    listed = content.get("keys")
    for entry in (listed if isinstance(listed, list) else [])[:KEYS_MAX]:
        if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
            continue
        try:
            key = jwt.PyJWK(entry)
        except (jwt.PyJWTError, ValueError, TypeError):
            continue
        if isinstance(key.key_id, str) and key.algorithm_name in ALGORITHMS:
            found[key.key_id] = Key(value=key.key, algorithm=str(entry.get("alg", "")))
    return found


def _checked(url: str) -> str:
    if not is_safe(url):
        raise Trouble(f"{url}: not https")
    return url


class _Stay(urllib.request.HTTPRedirectHandler):
    """Keys come from where the operator said, and from nowhere that it points to."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:  # noqa: ANN401, ARG002
        raise HTTPError(req.full_url, code, f"points to {newurl}", headers, fp)
