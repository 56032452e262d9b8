"""Where on the network a job may go: what a destination looks like, and which covers which."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network

_PORT_MAX = 65_535
_CHARACTERS_MAX = 253
_FORM = re.compile(r"(?P<where>[a-z0-9.-]{1,253}(/[0-9]{1,2})?)(:(?P<port>[0-9]{1,5}))?")
_NAME = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*")
_NUMBERS_ONLY = re.compile(r"[0-9.]+(/[0-9]+)?")


@dataclass(frozen=True, kw_only=True)
class Destination:
    """A host name or an IPv4 network; port 0 is every port."""

    where: str | IPv4Network
    port: int

    def covers(self, other: "Destination") -> bool:
        if self.port not in {0, other.port}:
            return False
        if isinstance(self.where, IPv4Network) and isinstance(other.where, IPv4Network):
            return other.where.subnet_of(self.where)
        return self.where == other.where


def destination(text: str) -> Destination | None:
    """ "example.org", "203.0.113.0/24:443"; None where the text is none."""
    found = _FORM.fullmatch(text.lower())
    if found is None or len(text) > _CHARACTERS_MAX:
        return None
    where, port = found["where"], int(found["port"] or 0)
    if port > _PORT_MAX or (found["port"] and not port):
        return None
    if not _NUMBERS_ONLY.fullmatch(where):
        return Destination(where=where, port=port) if _NAME.fullmatch(where) else None
    try:
        return Destination(where=IPv4Network(where), port=port)
    except ValueError:
        return None


def lie_within(wanted: Iterable[str], allowed: Iterable[str]) -> bool:
    """Each of the wanted is covered by one of the allowed."""
    covers = [known for text in allowed if (known := destination(text)) is not None]
    return all(
        (one := destination(text)) is not None and any(cover.covers(one) for cover in covers)
        for text in wanted
    )
