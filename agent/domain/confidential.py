"""What of an order nobody may see but its job, and the registry of its image."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, repr=False)
class Login:
    """What a registry asks for. For the one pull."""

    username: str
    password: str


@dataclass(frozen=True, kw_only=True, repr=False)
class Confidential:
    """Held in memory alone, for as long as a start needs it, and never shown."""

    # By their names, which are those of the files that the job finds.
    files: Mapping[str, bytes]
    login: Login | None = None
