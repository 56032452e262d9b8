"""The settings that hold now: read again on SIGHUP, as far as a running agent can change."""

import logging
from collections.abc import Callable
from dataclasses import fields, replace

from agent.settings import Settings, SettingsError

log = logging.getLogger(__name__)

# What the agent says of itself with every hello: said again, it holds. All else is built in when it starts.
SAID = frozenset(
    {
        "download_mbps",
        "gpus",
        "hours",
        "images_allowed",
        "images_denied",
        "labels",
        "prices_micro",
        "reclaim_notice_seconds",
        "region",
        "run_seconds_max",
        "trusted_accounts",
        "upload_mbps",
    }
)


class Current:
    """Whoever asks gets what holds at that moment."""

    def __init__(self, settings: Settings, load: Callable[[], Settings]) -> None:
        self.settings = settings
        self._load = load
        self._on_change: Callable[[], None] = lambda: None

    def tell(self, on_change: Callable[[], None]) -> None:
        """Have it called when something has changed."""
        self._on_change = on_change

    def read_again(self) -> None:
        """What is wrong changes nothing; what needs a restart waits for it."""
        try:
            wanted = self._load()
        except SettingsError as error:
            for line in str(error).splitlines():
                log.warning("the settings are not read again: %s", line)
            return
        changed = changes(self.settings, wanted)
        waiting = sorted(changed - SAID)
        if waiting:
            log.warning("%s: only from the next start on; jobs go on over it", ", ".join(waiting))
        now = sorted(changed & SAID)
        if now:
            self.settings = replace(self.settings, **{name: getattr(wanted, name) for name in now})
            self._on_change()
        log.info("settings read again: %s", ", ".join(now) or "nothing changed")


def changes(before: Settings, after: Settings) -> set[str]:
    names = {field.name for field in fields(Settings)}
    return {name for name in names if getattr(before, name) != getattr(after, name)}
