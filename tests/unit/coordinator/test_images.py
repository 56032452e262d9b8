"""Which images a seller takes: no other way of writing a name gets around the rule."""

import pytest

from coordinator.domain.images import ImagePolicy, full_name, matches

HUB = "docker.io"


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("python", f"{HUB}/library/python"),
        ("python:3.12", f"{HUB}/library/python:3.12"),
        ("team/image", f"{HUB}/team/image"),
        (f"{HUB}/python", f"{HUB}/library/python"),
        (f"index.{HUB}/python", f"{HUB}/library/python"),
        (f"registry-1.{HUB}/team/image", f"{HUB}/team/image"),
        ("registry.example.org/a/b:1", "registry.example.org/a/b:1"),
        ("registry:5000/a", "registry:5000/a"),
        ("localhost/a", "localhost/a"),
        ("python@sha256:00", f"{HUB}/library/python@sha256:00"),
    ],
)
def test_the_whole_name_is_what_an_engine_makes_of_it(reference, name):
    assert full_name(reference) == name


@pytest.mark.parametrize(
    ("pattern", "image", "fits"),
    [
        ("python", "python", True),
        ("python", "python:3.12", True),
        ("python", "python:3.12@sha256:00", True),
        ("python", "pythonic", False),
        ("python", "team/python", False),
        ("python:3.12", "python", False),
        ("python:3.*", "python:3.12", True),
        ("team/*", "team/a/b:1", True),
        ("team/*", f"{HUB}/team/a", True),
        ("team/*", "registry.example.org/team/a", False),
        ("*/team/*", "registry.example.org/team/a", True),
        ("*", "anything", True),
        ("*miner*", "team/xminerx:1", True),
        ("a*a", "a", False),
        ("registry.example.org/*@sha256:*", "registry.example.org/a@sha256:00", True),
        ("registry.example.org/*@sha256:*", "registry.example.org/a:1", False),
        ("registry.example.org:5000/a", "registry.example.org:5000/a:1", True),
    ],
)
def test_a_pattern_fits_whole_names(pattern, image, fits):
    assert matches(pattern, image) is fits


def test_a_pattern_of_many_stars_costs_no_more_than_one():
    assert not matches("*a" * 100 + "b", "a" * 512)


def test_what_is_denied_is_denied_also_where_it_is_allowed():
    policy = ImagePolicy(allowed=("team/*",), denied=("team/bad",))
    assert policy.takes("team/good")
    assert not policy.takes("team/bad:1")
    assert not policy.takes("other/good")
    assert ImagePolicy(denied=("team/bad",)).takes("other/good")
    assert not ImagePolicy(denied=("bad/*",)).takes(f"index.{HUB}/bad/x")
