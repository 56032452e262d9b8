"""One authority follows another, in two steps of the operator's; between them both are trusted."""

from enum import StrEnum
from typing import assert_never

from coordinator import identity
from coordinator.services.certificates import not_moved
from coordinator.settings import Settings, SettingsError
from coordinator.store.database import Database
from ledger.engine import make_engine
from runtime.clock import Clock

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
                identity.finish_rotation(settings.data_dir)
                return FINISHED.format(pem=settings.data_dir / "ca.pem")
            case _:
                assert_never(step)
    except identity.RotationError as error:
        raise SettingsError(str(error)) from None


def _behind(settings: Settings, digest: bytes, now_ms: int) -> list[str]:
    database = Database(make_engine(settings.database_url), lambda _: None)
    try:
        return list(database.read(lambda tx: not_moved(tx, digest, now_ms)).result())
    finally:
        database.close()


def _told(behind: list[str]) -> str:
    more = f" and {len(behind) - _NAMED_MAX} more" if len(behind) > _NAMED_MAX else ""
    return (
        f"these hosts have no certificate of the new authority yet: {', '.join(behind[:_NAMED_MAX])}{more}."
        " Wait until they have renewed theirs, or finish with --force: they must then be enrolled anew"
    )
