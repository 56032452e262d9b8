"""Log lines for people and for machines."""

import json
import logging

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
