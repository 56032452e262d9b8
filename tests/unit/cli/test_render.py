"""Values as text and JSON."""

import json

import pytest

from cli import model, people
from cli.render import amount, document, duration, gpu_name, lay_out, percent, plural, safe, size, table
from cli.screens import moment


@pytest.mark.parametrize(
    ("micro", "text"),
    [
        (0, "0.00"),
        (1, "0.000001"),
        (600_000, "0.60"),
        (1_234_567, "1.234567"),
        (-7_000_000, "-7.00"),
        (-1, "-0.000001"),
    ],
)
def test_amounts_are_exact(micro, text):
    assert amount(micro) == text


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0 s"),
        (4_321, "4.321 s"),
        (60_000, "1 min"),
        (200_000, "3 min 20 s"),
        (7_500_000, "2 h 5 min"),
        (86_400_000, "24 h"),
        (90 * 3_600_000, "3 d 18 h"),
    ],
)
def test_durations(ms, text):
    assert duration(ms) == text


def test_small_things():
    assert [size(24 * 2**30), size(24_564 * 2**20), size(81_559 * 2**20), size(0)] == [
        "24 GiB",
        "24 GiB",
        "79.6 GiB",
        "0 GiB",
    ]
    assert [percent(100_000), percent(2_500), percent(0)] == ["10 %", "0.25 %", "0 %"]
    assert [plural(1, "host"), plural(2, "host")] == ["1 host", "2 hosts"]
    assert lay_out(["x", *table(("A", "LONG"), [("xyz", "1")])]) == ["x", "A    LONG", "xyz  1"]
    assert moment(0) == "-"
    assert moment(1_700_000_000_000).startswith("2023-11-1")


def test_a_table_that_is_too_wide_leaves_out_what_says_nothing_or_tells_row_by_row():
    whole = table(("HOST", "LINE", "PRICE"), [("h1", "-", "0.45"), ("h2", "-", "")])
    assert lay_out(whole, 18) == ["HOST  LINE  PRICE", "h1    -     0.45", "h2    -"]
    assert lay_out(whole, 16) == ["HOST  PRICE", "h1    0.45", "h2"]
    assert lay_out(whole, 10) == ["HOST   h1", "PRICE  0.45", "", "HOST   h2"]


def test_a_line_that_is_too_long_goes_on_below_itself():
    told = lay_out(["hold        the most it can cost"], 26)
    assert told == ["hold        the most it", "            can cost"]
    assert lay_out(["one word and then another one"], 24) == ["one word and then", "another one"]
    assert lay_out(["job_" + "0" * 40], 30) == ["job_" + "0" * 40]


def test_simulated_is_said_once():
    assert gpu_name("RTX 4090", simulated=True) == "SIMULATED RTX 4090"
    assert gpu_name("SIMULATED RTX 4090", simulated=True) == "SIMULATED RTX 4090"
    assert gpu_name("RTX 4090", simulated=False) == "RTX 4090"


@pytest.mark.parametrize(
    "text", ["\x1b[2J", "a\nb", "a\rb", "\x9b1m", "\u202etxt.exe", "\x07", "\u2028", "\ud800"]
)
def test_nothing_of_a_strangers_steers_the_terminal(text):
    assert safe(text).isprintable()
    assert safe(text) != text


def test_no_line_leaves_with_what_steers_the_terminal():
    """Also where a screen has forgotten to make a stranger's word safe."""
    parts = ["a\x1b[31mb", *table(("NAME\x07",), [("\x1b]0;owned\x07",), ("c\u202ed",)])]
    lines = lay_out(parts, 80)
    assert lines[0] == "a\\x1b[31mb"
    assert all(line.isprintable() for line in lines)


def test_plain_text_stays():
    assert safe("Grüße, 東京 (5 %)") == "Grüße, 東京 (5 %)"


def test_a_document_says_its_version_and_names_fields_as_the_contract_does():
    wallet = people.Wallet(wallet_micro=1, held_micro=2, earnings_micro=3)
    assert json.loads(document(wallet=wallet, state=model.JobState.QUEUED, digest=b"\xff", none=None)) == {
        "schema_version": 1,
        "wallet": {"wallet_micro": 1, "held_micro": 2, "earnings_micro": 3},
        "state": "QUEUED",
        "digest": "ff",
        "none": None,
    }
    with pytest.raises(TypeError):
        document(price=0.5)
