"""Log set-up: lines for people, or JSON for machines; always on stderr, never the data stream."""

import json
import logging
import sys
from datetime import UTC, datetime

from runtime.text import printable

FIELDS = "usance_fields"


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            # What the line says, for a machine: `extra={FIELDS: …}`.
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=True)


class _PlainFormatter(logging.Formatter):
    """One line an event; what came from strangers can't forge a second line or a terminal escape."""

    def format(self, record: logging.LogRecord) -> str:
        message = printable(record.getMessage())
        at = (
            datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.")
            + f"{record.msecs:03.0f}Z"
        )
        line = f"{at} {record.levelname.lower():7} {record.name}: {message}"
        if record.exc_info:
            # Lines of it are told from lines of the log by how they begin.
            raised = self.formatException(record.exc_info).splitlines()
            line += "".join(f"\n    {printable(part)}" for part in raised)
        return line


def set_up(*, as_json: bool = False, level: str = "INFO") -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if as_json else _PlainFormatter())
    logging.basicConfig(handlers=[handler], level=level, force=True)
