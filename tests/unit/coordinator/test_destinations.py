"""Where a job may go on the network, and which destination covers which."""

import pytest

from coordinator.domain.destinations import destination, lie_within


@pytest.mark.parametrize(
    "text",
    ["example.org", "Example.org:443", "a", "203.0.113.9", "203.0.113.0/24", "203.0.113.0/24:1", "0.0.0.0/0"],
)
def test_what_a_destination_looks_like(text):
    assert destination(text) is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "*.org",
        "example.org:0",
        "example.org:65536",
        "example.org:",
        "-a.org",
        "a-.org",
        "a..org",
        "example.org/24",
        "203.0.113",
        "203.0.113.9/33",
        # Bits beside the network: what was meant is anybody's guess.
        "203.0.113.9/24",
        "256.0.0.1",
        "::1",
        "https://example.org",
        "a" * 254,
        "example.org\n",
    ],
)
def test_what_is_none(text):
    assert destination(text) is None


@pytest.mark.parametrize(
    ("wanted", "allowed", "covered"),
    [
        ((), (), True),
        (("example.org",), (), False),
        (("example.org:443",), ("example.org",), True),
        (("example.org",), ("example.org:443",), False),
        (("EXAMPLE.org:443",), ("example.ORG:443",), True),
        (("www.example.org",), ("example.org",), False),
        (("203.0.113.9:80", "example.org"), ("example.org", "203.0.113.0/24"), True),
        (("203.0.112.0/23",), ("203.0.113.0/24",), False),
        (("example.org", "example.com"), ("example.org",), False),
    ],
)
def test_each_that_is_wanted_must_be_covered(wanted, allowed, covered):
    assert lie_within(wanted, allowed) is covered
