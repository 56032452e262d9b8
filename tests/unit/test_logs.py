"""Log lines for people and for machines."""

import json
import logging
import os
import sys

from runtime import logs


def test_a_machine_gets_each_part_by_its_name(capsys):
    logs.set_up(as_json=True)
    fields = {"request_id": "rpc_1", "method": "/m", "status": "OK", "who": "acct_1", "took_ms": 3}
    logging.getLogger("gate").info("%s went", "it", extra={logs.FIELDS: fields})
    logging.getLogger("gate").warning("two\nlines")
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert {**fields, "level": "info", "logger": "gate", "message": "it went"}.items() <= first.items()
    assert second["message"] == "two\nlines"
    assert "method" not in second


def test_a_stranger_forges_no_second_line_for_people(capsys):
    logs.set_up()
    logging.getLogger("gate").info("told %s", "\x1b[31m\nINFO forged", extra={logs.FIELDS: {"who": "x"}})
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("info    gate: told \\x1b[31m\\nINFO forged")


def test_what_an_exception_says_forges_no_line_either(capsys):
    logs.set_up()
    try:
        raise ValueError("told\n2026-11-21T00:00:00.000Z info gate: forged\x1b[2J")
    except ValueError:
        logging.getLogger("gate").exception("it failed")
    first, *rest = capsys.readouterr().err.splitlines()
    assert first.endswith("gate: it failed")
    assert all(line.startswith("    ") and line.isprintable() for line in rest)


def test_the_journal_is_told_how_grave_a_line_is_and_no_time(capfd, monkeypatch):
    stream = os.fstat(sys.stderr.fileno())
    monkeypatch.setenv("JOURNAL_STREAM", f"{stream.st_dev}:{stream.st_ino}")
    logs.set_up(level="DEBUG")
    gate = logging.getLogger("gate")
    gate.debug("a")
    gate.info("b")
    gate.warning("c")
    try:
        raise ValueError("told")
    except ValueError:
        gate.exception("d")
    debug, info, warning, *error = capfd.readouterr().err.splitlines()
    assert (debug, info, warning) == ("<7>gate: a", "<6>gate: b", "<4>gate: c")
    # Each line is an entry of its own there.
    assert all(line.startswith("<3>") for line in error)
    assert error[0] == "<3>gate: d"


def test_a_stream_that_is_not_the_journals_gets_lines_for_people(capfd, monkeypatch):
    monkeypatch.setenv("JOURNAL_STREAM", "1:1")
    logs.set_up()
    logging.getLogger("gate").warning("c")
    assert capfd.readouterr().err.endswith(" warning gate: c\n")
