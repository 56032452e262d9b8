"""One authority follows another, or one key of secrets another, in two steps of the operator's; between them
both are trusted.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import TypeVar, assert_never

from coordinator import identity
from coordinator.services import vault
from coordinator.services.certificates import not_moved
from coordinator.services.upkeep import not_resealed
from coordinator.services.vault import Vault
from coordinator.settings import Settings, SettingsError
from coordinator.store.database import Database
from coordinator.store.ports import Transaction
from ledger.engine import make_engine
from runtime.clock import Clock

T = TypeVar("T")
_NAMED_MAX = 20

BEGUN = """\
Made a second authority. Next:
  1. Restart the coordinator, or relieve it: usance-coordinator run --take-over. From then on its hosts get
     certificates of the new authority when they renew theirs, and are told to trust both.
  2. Give people {both} for --ca: it names both.
  3. When all hosts have renewed, within {days} days: usance-coordinator rotate-ca finish
"""
FINISHED = """\
From its next start on the coordinator shows itself by the new authority, and trusts no other.
The old one's key is gone. People need {pem} for --ca.
"""


# In the data folder: the name of the key that the coordinator seals with.
SEALING_NAME = "secrets.sealing"
SECRETS_BEGUN = """\
Put a fresh key before those in {path}. Next:
  1. Restart the coordinator, or relieve it: usance-coordinator run --take-over. From then on it seals with
     the new key, and seals anew what is kept.
  2. usance-coordinator rotate-secrets finish
"""
SECRETS_FINISHED = """\
Took the old keys out of {path}: nothing is sealed with them any more.
"""


class Step(StrEnum):
    BEGIN = "begin"
    FINISH = "finish"


def run(settings: Settings, step: Step, clock: Clock, *, force: bool) -> str:
    """What was done, and what is next."""
    try:
        match step:
            case Step.BEGIN:
                both = identity.begin_rotation(settings.data_dir, clock.wall_ms())
                return BEGUN.format(both=both, days=settings.host_certificate_days)
            case Step.FINISH:
                digest = identity.next_digest(settings.data_dir)
                behind = _behind(settings, digest, clock.wall_ms())
                if behind and not force:
                    raise SettingsError(_told(behind))
                identity.finish_rotation(settings.data_dir, settings.ca_key_source)
                return FINISHED.format(pem=settings.data_dir / "ca.pem")
            case _:
                assert_never(step)
    except identity.RotationError as error:
        raise SettingsError(str(error)) from None


def run_secrets(settings: Settings, step: Step) -> str:
    """The same for the keys that seal secrets in the database."""
    source = settings.secrets_key_source
    if source.command:
        raise SettingsError(
            f"{source.command[0]} prints the keys: have it print a fresh one first (openssl rand -hex 32) and"
            " the others below, restart the coordinator, and after two minutes take the others out"
        )
    found = vault.kept(source)
    match step:
        case Step.BEGIN:
            if len(found.keys) > 1:
                raise SettingsError("a rotation has begun already; next: rotate-secrets finish")
            vault.with_fresh(source)
            return SECRETS_BEGUN.format(path=source.path)
        case Step.FINISH:
            if len(found.keys) == 1:
                raise SettingsError("no rotation has begun; first: rotate-secrets begin")
            # Else one that runs would go on sealing with a key that is gone from here.
            if _sealing(settings) != found.name:
                raise SettingsError("restart the coordinator first: it does not know the new key yet")
            if count := _read(settings, lambda tx: not_resealed(tx, found)):
                raise SettingsError(
                    f"{count} jobs' secrets are sealed with old keys still; try again in a minute"
                )
            vault.first_alone(source)
            return SECRETS_FINISHED.format(path=source.path)
        case _:
            assert_never(step)


def note_sealing(settings: Settings, found: Vault) -> None:
    """By the coordinator that seals, from now on."""
    (settings.data_dir / SEALING_NAME).write_text(f"{found.name}\n", encoding="ascii")


def _sealing(settings: Settings) -> str:
    path = settings.data_dir / SEALING_NAME
    return path.read_text(encoding="ascii").strip() if path.exists() else ""


def _behind(settings: Settings, digest: bytes, now_ms: int) -> list[str]:
    return list(_read(settings, lambda tx: not_moved(tx, digest, now_ms)))


def _read(settings: Settings, function: Callable[[Transaction], T]) -> T:
    database = Database(make_engine(settings.database_url), lambda _: None)
    try:
        return database.read(function).result()
    finally:
        database.close()


def _told(behind: list[str]) -> str:
    more = f" and {len(behind) - _NAMED_MAX} more" if len(behind) > _NAMED_MAX else ""
    return (
        f"these hosts have no certificate of the new authority yet: {', '.join(behind[:_NAMED_MAX])}{more}."
        " Wait until they have renewed theirs, or finish with --force: they must then be enrolled anew"
    )
