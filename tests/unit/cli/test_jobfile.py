"""What a job file says, and on which line it is wrong."""

import pytest

from cli.jobfile import Entry, Problem, Shape, read_entries, unknown

TEXT = '''\
# a job
image = "python:3.12"
"budget" = 0.60
command = [
    "python",
    "-c",
    """
budget = 7
[env]
""",
]
max_time = '2h'
retries = 3
simulated = true

[env]   # for the job
SEED = 7
FAST = false
'''


def test_every_key_is_told_with_its_line_and_its_words():
    entries, problems = read_entries(TEXT)
    assert problems == []
    assert entries == [
        Entry(key="image", line=2, shape=Shape.ONE, words=("python:3.12",)),
        Entry(key="budget", line=3, shape=Shape.ONE, words=("0.60",)),
        Entry(key="command", line=4, shape=Shape.LIST, words=("python", "-c", "budget = 7\n[env]\n")),
        Entry(key="max-time", line=12, shape=Shape.ONE, words=("2h",)),
        Entry(key="retries", line=13, shape=Shape.ONE, words=("3",)),
        Entry(key="simulated", line=14, shape=Shape.YES),
        Entry(key="env", line=16, shape=Shape.TABLE, words=("SEED=7", "FAST=false")),
    ]


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("a = 1\nb = \n", 2, "no TOML: Invalid value"),
        ("a = 1\na = 2\n", 2, "no TOML"),
        ("a = [1,\n", 2, "no TOML"),
        ("x = 1\nsince = 2026-11-21\n", 2, "since: a date or a time means nothing here"),
        ("x = 1\n\nreach = [[1]]\n", 3, "reach: holds something that is no text"),
        ("[env]\nA = [1]\n", 1, "env: holds something"),
    ],
)
def test_what_can_not_be_a_value_is_told_with_its_line(text, line, part):
    _, (problem,) = read_entries(text)
    assert problem.line == line
    assert part in problem.sentence


def test_a_number_is_what_was_written():
    entries, _ = read_entries("budget = 0.1\ncpu = 1.50\n")
    assert [entry.words for entry in entries] == [("0.1",), ("1.50",)]


@pytest.mark.parametrize(
    ("key", "hint"),
    [("gpus", "did you mean gpu?"), ("imgae", "did you mean image?"), ("zzz", "known are gpu, image")],
)
def test_an_unknown_key_is_told_with_the_one_that_was_meant(key, hint):
    entry = Entry(key=key, line=4, shape=Shape.ONE, words=("x",))
    problem = unknown(entry, {"gpu", "image"})
    assert problem == Problem(line=4, sentence=f"{key} is no key of a job file; {hint}")
