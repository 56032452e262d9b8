"""What people type."""

import pytest

from cli.parse import (
    MICRO_MAX,
    name_from_command,
    parse_credits,
    parse_duration,
    parse_env,
    parse_gpu,
    parse_label,
    parse_processors,
    parse_reliability,
    parse_size,
    parse_version,
)
from cli.wishes import GpuRequest


@pytest.mark.parametrize(
    ("text", "micro"),
    [
        ("5", 5_000_000),
        ("0.60", 600_000),
        ("0.000001", 1),
        (" 1.5 ", 1_500_000),
        ("9007199254.740991", MICRO_MAX),
    ],
)
def test_credits(text, micro):
    assert parse_credits(text) == micro


@pytest.mark.parametrize(
    "text", ["", "-1", "1e3", "0.1234567", "1,5", ".5", "9007199254.740992", "1_000", "٣"]
)
def test_no_credits(text):
    with pytest.raises(ValueError, match=r"credits|market can hold"):
        parse_credits(text)


@pytest.mark.parametrize(
    ("text", "ms"),
    [("2h", 7_200_000), ("1h30m", 5_400_000), ("45s", 45_000), ("500ms", 500), ("1d", 86_400_000), ("0s", 0)],
)
def test_durations(text, ms):
    assert parse_duration(text) == ms


@pytest.mark.parametrize("text", ["", "2", "h", "2 h", "-1s", "1.5h", "1h30"])
def test_no_durations(text):
    with pytest.raises(ValueError, match="write it like 2h"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("24GB", 24 * 10**9),
        ("24GiB", 24 * 2**30),
        ("1.5g", 15 * 10**8),
        ("80 GB", 80 * 10**9),
        ("512M", 512 * 10**6),
    ],
)
def test_sizes(text, count):
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["", "big", "-1GB", "24XB", "1.2345GB"])
def test_no_sizes(text):
    with pytest.raises(ValueError, match="write it like 24GB"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        ("rtx4090", GpuRequest(model="rtx4090", count=1)),
        ("rtx4090:2", GpuRequest(model="rtx4090", count=2)),
        ("any:64", GpuRequest(model="", count=64)),
        ("ANY", GpuRequest(model="", count=1)),
    ],
)
def test_gpus(text, request_):
    assert parse_gpu(text) == request_


@pytest.mark.parametrize("text", ["", ":2", "a100:", "a100:0", "a100:65", "a100:x", "a100:-1", "a100:1:2"])
def test_no_gpus(text):
    with pytest.raises(ValueError, match="write"):
        parse_gpu(text)


def test_environment():
    assert parse_env("A_1=b=c") == ("A_1", "b=c")
    assert parse_env("A=") == ("A", "")
    for text in ("A", "=b", "1A=b", "A-B=c"):
        with pytest.raises(ValueError, match="NAME=value"):
            parse_env(text)


def test_labels():
    assert parse_label("rack=b7") == ("rack", "b7")
    assert parse_label("a.b_c-1=x=Y ") == ("a.b_c-1", "x=Y ")
    assert parse_label("empty=") == ("empty", "")
    for text in ("rack", "=b7", "Rack=b7", "a b=c", "x" * 64 + "=1"):
        with pytest.raises(ValueError, match="rack=b7"):
            parse_label(text)


def test_versions():
    for text in ("12", "12.4", "550.54.14", "1.2.3.4"):
        assert parse_version(text) == text
    for text in ("", "12.", ".4", "12.4-1", "1.2.3.4.5", "v12", "\u0661", "1" * 10):
        with pytest.raises(ValueError, match="digits and dots"):
            parse_version(text)


@pytest.mark.parametrize(
    ("text", "ppm"),
    [
        ("99%", 990_000),
        ("99.5", 995_000),
        ("0", 0),
        ("100%", 1_000_000),
        ("99.0001%", 990_001),
        (" 5 ", 50_000),
    ],
)
def test_reliabilities(text, ppm):
    assert parse_reliability(text) == ppm


@pytest.mark.parametrize("text", ["", "%", "high", "-1", "100.0001", "101%", "99.00001", "99 %"])
def test_no_reliabilities(text):
    with pytest.raises(ValueError, match=r"reliability|100%"):
        parse_reliability(text)


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (("python",), "python"),
        (("/bin/sh", "-c"), "sh"),
        (("a b;c",), "a-b-c"),
        (("--",), "job"),
        (("/",), "job"),
    ],
)
def test_a_name_is_made_of_the_program(command, name):
    assert name_from_command(command) == name


def test_processors():
    assert [parse_processors(text) for text in ("4", "1.5", "0.125", " 64 ")] == [4_000, 1_500, 125, 64_000]
    for text in ("", "many", "-1", "1.2345", "1,5", "\u0661"):
        with pytest.raises(ValueError, match=r"like 4 or 1\.5"):
            parse_processors(text)
