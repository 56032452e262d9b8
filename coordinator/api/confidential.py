"""What of an order nobody may see. It passes through the edge and is nowhere else in the clear."""

import logging
import re
from dataclasses import replace

from coordinator.api import convert_host
from coordinator.api.validate import whole
from coordinator.domain.host import Isolation
from coordinator.domain.job import JobSpec
from coordinator.domain.refusal import invalid
from coordinator.services.desired import Wanted
from coordinator.services.vault import Sealed, UnreadableError, Vault
from usance.v1 import host_pb2 as h
from usance.v1 import types_pb2 as t

_LOG = logging.getLogger(__name__)
SECRETS_MAX = 32
SECRETS_BYTES_MAX = 32_768
USER_BYTES_MAX = 256
PASSWORD_BYTES_MAX = 4_096
# It names a file.
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}", re.ASCII)


def described(spec: JobSpec, message: t.Confidential) -> JobSpec:
    """The order with what everybody may know of it. Refuses what is out of bounds."""
    names = tuple(secret.name for secret in message.secrets)
    if len(names) > SECRETS_MAX:
        raise invalid("confidential.secrets", f"at most {SECRETS_MAX}")
    for name in names:
        if not _NAME.fullmatch(name):
            raise invalid(
                "confidential.secrets.name",
                "1 to 64 of A-Z, a-z, 0-9, dot, underscore and dash, the first no dot",
            )
        if names.count(name) > 1:
            raise invalid("confidential.secrets.name", f"each once; {name} is there twice")
    for secret in message.secrets:
        whole("confidential.secrets.value", len(secret.value), 1, SECRETS_BYTES_MAX)
    if sum(len(secret.value) for secret in message.secrets) > SECRETS_BYTES_MAX:
        raise invalid("confidential.secrets", f"at most {SECRETS_BYTES_MAX} bytes in all")
    if message.HasField("registry"):
        _check_registry(message.registry)
    found = replace(spec, secret_names=names, has_registry_credential=message.HasField("registry"))
    if found.is_confidential and spec.isolation_min is not Isolation.CONTAINER:
        raise invalid("spec.isolation_min", "ISOLATION_CONTAINER, where there are secrets")
    return found


def _check_registry(registry: t.RegistryCredential) -> None:
    user, password = registry.username, registry.password
    if not 1 <= len(user.encode()) <= USER_BYTES_MAX or not user.isprintable() or ":" in user:
        raise invalid("confidential.registry.username", f"1 to {USER_BYTES_MAX} bytes without a colon")
    if not 1 <= len(password.encode()) <= PASSWORD_BYTES_MAX or not password.isprintable():
        raise invalid(
            "confidential.registry.password", f"1 to {PASSWORD_BYTES_MAX} bytes without control characters"
        )


def seal(vault: Vault, message: t.Confidential, account_id: str) -> Sealed | None:
    content = message.SerializeToString(deterministic=True)
    return vault.seal(content, account_id) if content else None


def wanted_to(wanted: Wanted, vault: Vault) -> h.DesiredAttempt | None:
    """None where its host can't be told what it needs: it hears nothing of it, and is given up for it."""
    said = convert_host.wanted_to(wanted)
    if wanted.sealed is None:
        return said
    try:
        said.confidential.ParseFromString(vault.open(wanted.sealed, wanted.account_id))
    except UnreadableError as error:
        _LOG.error("%s is not told to its host, its secrets can't be read: %s", said.attempt_id, error)
        return None
    return said
