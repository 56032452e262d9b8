"""Where the coordinator is, whose certificate it must show, and who we are."""

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Connection:
    target: str
    authority_pem: bytes
    token: str = field(repr=False)
