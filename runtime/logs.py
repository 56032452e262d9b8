"""Log set-up: lines for people, or JSON for machines; always on stderr, never the data stream."""

import json
import logging
import os
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
        line = f"{self._head(record)}{record.name}: {printable(record.getMessage())}"
        if record.exc_info:
            # Lines of it are told from lines of the log by how they begin.
            raised = self.formatException(record.exc_info).splitlines()
            line += "".join(f"\n{self._margin(record.levelno)}    {printable(part)}" for part in raised)
        return line

    def _head(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.")
        return f"{at}{record.msecs:03.0f}Z {record.levelname.lower():7} "

    def _margin(self, level: int) -> str:  # noqa: ARG002  the journal's differs by it
        return ""


class _JournalFormatter(_PlainFormatter):
    """For systemd's journal: it notes the time itself, and how grave a line is stands at its beginning."""

    def _head(self, record: logging.LogRecord) -> str:
        return self._margin(record.levelno)

    def _margin(self, level: int) -> str:
        # As syslog counts: 3 is an error.
        return f"<{next((grave for least, grave in _GRAVITIES if level >= least), 7)}>"


_GRAVITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))


def set_up(*, as_json: bool = False, level: str = "INFO") -> None:
    handler = logging.StreamHandler(sys.stderr)
    plain = _JournalFormatter() if _to_journal() else _PlainFormatter()
    handler.setFormatter(_JsonFormatter() if as_json else plain)
    logging.basicConfig(handlers=[handler], level=level, force=True)
    # Python would find out where each line comes from, in which thread and process: no line of ours tells it.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def _to_journal() -> bool:
    """systemd names the stream that it has given us; stderr may have become another one since."""
    try:
        found = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM", "") == f"{found.st_dev}:{found.st_ino}"
