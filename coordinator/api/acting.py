"""What is being done now, for the log of acts: kept by the transaction that does it."""

from contextvars import ContextVar
from dataclasses import replace
from urllib.parse import unquote

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from coordinator.domain.act import Act

OK = "OK"
REQUEST_BYTES_MAX, ADDRESS_BYTES_MAX = 512, 128
# Secrets, and what says nothing to people.
_UNTOLD = frozenset(
    {
        "token_secret",
        "csr_pem",
        "request_id",
        "password",
        "old_password",
        "new_password",
        "invitation",
        "refresh_token",
    }
)
# Of an order: what it is and what it may cost.
_PARTS = {"spec": ("name", "image", "budget_micro")}
_NOW: ContextVar["Acting | None"] = ContextVar("acting", default=None)


class Acting:
    """One RPC's act, until something keeps it."""

    def __init__(self, act: Act) -> None:
        self._act = act
        self._is_kept = False

    def refused(self, code: str) -> Act:
        return replace(self._act, result=code)

    def by(self, who: str) -> None:
        self._act = replace(self._act, who=who)

    def keep(self) -> Act | None:
        if self._is_kept:
            return None
        self._is_kept = True
        return self._act


def begin(act: Act) -> Acting:
    acting = Acting(act)
    _NOW.set(acting)
    return acting


def keep() -> Act | None:
    """The act that this RPC is, for whoever is about to do it; None: it is none, or is kept already."""
    acting = _NOW.get()
    return None if acting is None else acting.keep()


def by(who: str) -> None:
    """Who it is that does it, where that was not known when it began."""
    acting = _NOW.get()
    if acting is not None:
        acting.by(who)


def address_of(peer: str) -> str:
    """Of gRPC's name for the other side, "ipv4:192.0.2.1:4711", without the port."""
    kind, _, rest = peer.partition(":")
    host = rest.rpartition(":")[0] if kind in {"ipv4", "ipv6"} else rest
    return _line(unquote(host), ADDRESS_BYTES_MAX)


def summary(request: Message) -> str:
    """Its plain fields, in order."""
    told: list[str] = []
    for field, value in request.ListFields():
        if field.type != FieldDescriptor.TYPE_MESSAGE and field.name not in _UNTOLD:
            plain = value if isinstance(value, str | int) else list(value)
            told.append(f"{field.name}={plain}")
        told += [f"{field.name}.{part}={getattr(value, part)}" for part in _PARTS.get(field.name, ())]
    return _line(" ".join(told), REQUEST_BYTES_MAX)


def _line(text: str, bytes_max: int) -> str:
    """What a terminal and a database can take."""
    safe = "".join(character if character.isprintable() else "?" for character in text)
    return safe.encode("utf-8", "replace")[:bytes_max].decode("utf-8", "ignore")
