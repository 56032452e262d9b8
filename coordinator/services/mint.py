"""Secrets that we hand out and do not keep.

A token is a keyed hash of the request that asked for it, so the same request gives the same token again,
and only its digest need be stored. The key lives outside the database.
"""

import base64
import hashlib
import hmac
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Mint:
    key: bytes = field(repr=False)

    def token(self, prefix: str, *parts: str) -> str:
        """192 bits that nobody without the key can guess, behind a prefix that secret scanners know."""
        message = "".join(f"{len(part)}:{part}" for part in (prefix, *parts))
        digest = hmac.new(self.key, message.encode(), hashlib.sha256).digest()
        return f"{prefix}_{base64.urlsafe_b64encode(digest[:24]).decode()}"


def digest_of(token: str) -> bytes:
    """192 random bits need no slow hash: there is nothing to guess."""
    return hashlib.sha256(token.encode()).digest()
