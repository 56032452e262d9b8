"""The enrolment token that a seller carries from the coordinator to a machine."""

import base64
import binascii
import json
from dataclasses import dataclass

PREFIX = "usance_enroll_"


class TokenError(ValueError):
    """The token can't be read. The message says what is wrong with it, and never repeats it."""


@dataclass(frozen=True, kw_only=True)
class EnrolmentToken:
    """Where to enrol, where to work afterwards, whom to trust, and the secret that proves the right."""

    market: str
    hosts: str
    authority_pem: str
    secret: str

    def __repr__(self) -> str:
        return f"EnrolmentToken(market={self.market!r}, hosts={self.hosts!r})"


def parse(token: str) -> EnrolmentToken:
    token = token.strip()
    if not token.startswith(PREFIX):
        raise TokenError(f"an enrolment token begins with {PREFIX}; is this one complete?")
    encoded = token.removeprefix(PREFIX)
    try:
        fields = json.loads(
            base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
        )
    except (binascii.Error, ValueError) as error:
        raise TokenError("the token is damaged; copy it again, whole") from error
    if not isinstance(fields, dict):
        raise TokenError("the token holds something else than an enrolment")
    values = {name: fields.get(name) for name in ("market", "hosts", "authority", "secret")}
    missing = [name for name, value in values.items() if not isinstance(value, str) or not value]
    if missing:
        raise TokenError(f"the token lacks {', '.join(missing)}")
    return EnrolmentToken(
        market=str(values["market"]),
        hosts=str(values["hosts"]),
        authority_pem=str(values["authority"]),
        secret=str(values["secret"]),
    )
