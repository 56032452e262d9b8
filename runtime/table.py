"""One table of a TOML file, and everything that is wrong with it."""

import difflib
import re
from collections.abc import Mapping

PATTERNS_MAX = 32
_SIMILAR = 0.6
_HEADER = re.compile(r"\s*\[([^\[\]]+)\]\s*(?:#.*)?$")
_ENTRY = re.compile(r"""\s*("[^"]*"|'[^']*'|[A-Za-z0-9_.-]+)\s*=""")
_PATTERN = re.compile(r"[A-Za-z0-9._:/@*-]{1,255}", re.ASCII)


class Table:
    """Takes values out of one TOML table and notes everything that is wrong with them."""

    def __init__(self, where: str, values: Mapping[str, object], faults: list[str]) -> None:
        self._where = where
        self._values = dict(values)
        self._faults = faults
        # What has been asked for: all that there may be.
        self._known: list[str] = []

    def fault(self, name: str, wanted: str) -> None:
        self._faults.append(f"{self._where}{name}: {wanted}")

    def _take(self, name: str, default: object) -> object:
        self._known.append(name)
        return self._values.pop(name, default)

    def text(self, name: str, default: str, pattern: str, wanted: str) -> str:
        value = self._take(name, default)
        if isinstance(value, str) and re.fullmatch(pattern, value):
            return value
        self.fault(name, f"must be {wanted}, not {value!r}")
        return default

    def address(self, name: str) -> tuple[str, int] | None:
        """Host and port; None where nothing is said."""
        value = self._take(name, "")
        host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
        if value == "":
            return None
        if host and port.isascii() and port.isdigit() and int(port) <= 65_535:
            return host.strip("[]"), int(port)
        self.fault(name, f'must be an address and a port, "127.0.0.1:9464", not {value!r}')
        return None

    def flag(self, name: str, *, default: bool) -> bool:
        value = self._take(name, default)
        if isinstance(value, bool):
            return value
        self.fault(name, f"must be true or false, not {value!r}")
        return default

    def number(self, name: str, default: int, least: int, most: int) -> int:
        value = self._take(name, default)
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        self.fault(name, f"must be a whole number from {least} to {most}, not {value!r}")
        return default

    def names(self, name: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        value = self._take(name, list(default))
        if isinstance(value, list) and all(isinstance(item, str) and item for item in value):
            return tuple(value)
        self.fault(name, f"must be a list of names in quotes, not {value!r}")
        return ()

    def patterns(self, name: str) -> tuple[str, ...]:
        found = self.names(name)
        for pattern in found:
            if not _PATTERN.fullmatch(pattern):
                self.fault(name, f"{pattern!r} must be an image reference in which * stands for anything")
        if len(found) > PATTERNS_MAX:
            self.fault(name, f"there must be at most {PATTERNS_MAX}, not {len(found)}")
        return found

    def table(self, name: str) -> dict[str, object]:
        value = self._take(name, {})
        if isinstance(value, dict):
            return value
        self.fault(name, f"must be a table, [{name}], not {value!r}")
        return {}

    def leftovers(self) -> None:
        for name in sorted(self._values):
            close = difflib.get_close_matches(name, self._known, n=1, cutoff=_SIMILAR)
            meant = f"; did you mean {close[0]}?" if close else ""
            self.fault(name, f"there is no such setting{meant}")


def lines_of(text: str) -> dict[str, int]:
    """The line of each setting, by its name with its table's before it. Of valid TOML."""
    found: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        header = _HEADER.match(line)
        if header:
            table = f"{header[1].strip()}."
            continue
        entry = _ENTRY.match(line)
        if entry:
            found.setdefault(table + entry[1].strip().replace("'", '"'), number)
    return found


def placed(fault: str, lines: Mapping[str, int]) -> str:
    """The fault with its line before it, where that is known."""
    name = fault.partition(": ")[0]
    plain = name.replace('"', "")
    line = lines.get(name) or lines.get(plain) or lines.get(name.partition(".")[0])
    return f"line {line}: {fault}" if line else fault
