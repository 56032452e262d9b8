"""Records docs/sessions/buyer.md: `python -m tests.docs.sessions` (or `make sessions`).

A market is set up by the quick starts, and a buyer's commands are typed at a real terminal. A test plays all
of it again, and fails when what is committed is not what is seen now, but for times, ids and amounts.
"""

import difflib
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.support.town import ROOT, Town, blocks

QUICK_STARTS = {"operator": "operator", "seller": "bob"}
SESSION = ROOT / "docs/sessions/buyer.md"
JOB = "--gpu rtx4090 --simulated --isolation process"


@dataclass(frozen=True, kw_only=True)
class Step:
    """`same`: what it shows depends on nothing but times, ids and amounts."""

    text: str
    command: str
    keys: str = ""
    after: str = ""
    same: bool = True


STEPS = (
    Step(
        text="Signing in, with what the operator sent: an address, a certificate and a token in a file.",
        command="usance login --server market.example.org:7410 --ca ca.pem --token-file alice.token",
    ),
    Step(text="What there is to spend, and what there is to be had.", command="usance wallet"),
    Step(text="", command="usance offers --gpu rtx4090 --simulated"),
    Step(
        text="Too much asked. Nothing is held by a quote; it says what stands in the way.",
        command=f'usance quote {JOB} --vram 80GB --budget 1 -- python3 train.py; echo "exit code $?"',
    ),
    Step(
        text="The real thing. A yes is wanted before anything is held. The program's own words come as\n"
        "they are written, and its exit code is ours.",
        command=f"usance run {JOB} --budget 1 --name hello -- sh -c 'echo step 1; echo step 2; exit 3'; "
        'echo "exit code $?"',
        keys="y\n",
        after="[y/N]",
    ),
    Step(text="", command="usance why hello"),
    Step(
        text="A long one, left alone.",
        command=f"usance run -y --detach {JOB} --budget 1 --max-time 2h --name nap -- "
        "sh -c 'echo begins; sleep 3600'",
    ),
    Step(text="", command="until usance logs nap | grep begins; do sleep 1; done"),
    Step(text="", command="usance jobs"),
    Step(text="", command="usance top | cat", same=False),
    Step(text="", command="usance extend nap --budget 0.50 --time 1h"),
    Step(text="", command="usance cancel nap"),
    Step(text="", command='usance wait nap; echo "exit code $?"'),
    Step(
        text="What it cost, computed again from its evidence on the buyer's own machine.",
        command="usance bill nap --verify",
        same=False,
    ),
    Step(text="Mistakes are told in a sentence.", command="usance run --gpu rtx4090:0 --budget 1 -- true"),
    Step(text="", command="usance show frist"),
    Step(text="", command="usance budgte"),
)


def main() -> None:
    town = Town(Path(tempfile.mkdtemp(prefix="usance-session-")))
    try:
        set_up(town)
        SESSION.write_text(page(play(town)), encoding="utf-8")
    finally:
        town.stop()


def set_up(town: Town) -> None:
    """What operator and seller do, as their pages say."""
    for page_name, person in QUICK_STARTS.items():
        for commands in blocks(ROOT / f"docs/quickstart-{page_name}.md"):
            town.sh(person, commands)
    # Who looks at offers before would see none.
    town.sh("bob", "until usance hosts | grep -q online; do sleep 0.5; done")


def play(town: Town) -> list[str]:
    """What the terminal shows of each step."""
    shown = []
    for step in STEPS:
        command = step.command.replace("market.example.org:7410", town.server)
        text = town.at_terminal("alice", command, step.keys, step.after)
        text = text.replace(town.server, "market.example.org:7410").replace(str(town.folder / "alice"), "~")
        shown.append(text.replace(str(town.folder), ""))
    return shown


def page(shown: list[str]) -> str:
    lines = [
        "# A buyer's first ten minutes",
        "",
        "Recorded by `make sessions` at a real terminal, on a market that the quick starts for",
        "[operator](../quickstart-operator.md) and [seller](../quickstart-seller.md) have set up. The",
        "seller's machine had no GPU: what it offers is simulated and says so, and its jobs are plain",
        "processes. Everything else is as it is.",
    ]
    for step, text in zip(STEPS, shown, strict=True):
        lines += [
            "",
            *([step.text, ""] if step.text else []),
            "```",
            f"$ {step.command}",
            text.rstrip("\n"),
            "```",
        ]
    return "\n".join(lines) + "\n"


def shapes(text: str) -> list[list[str]]:
    """A page's blocks without what differs each time; of those that always differ, the command."""
    found = re.findall(r"```\n(.*?)\n```", text, re.DOTALL)
    assert len(found) == len(STEPS), "run `make sessions`"
    # Sorted: output and progress come by two ways, either of which may be quicker.
    return [
        sorted(_shape(line) for line in _told(block, step)) for step, block in zip(STEPS, found, strict=True)
    ]


def differences(recorded: str, played: str) -> list[str]:
    """What is other than it was, step by step."""
    return [
        line
        for was, now in zip(shapes(recorded), shapes(played), strict=True)
        if was != now
        for line in difflib.unified_diff(was, now, "recorded", "played", lineterm="", n=0)
    ]


def _told(block: str, step: Step) -> list[str]:
    """Without what is told only where a host is slow."""
    lines = block.splitlines() if step.same else block.splitlines()[:1]
    return [line for line in lines if not line.startswith(("usance: the host: ", "usance: waits, "))]


def _shape(line: str) -> str:
    line = re.sub(r"\b[a-z]+_[0-9a-z]{26}\b", "ID", line)
    line = re.sub(r"\b[0-9a-f]{12,}\b", "DIGEST", line)
    line = re.sub(r"\d+(\.\d+)? (ms|s|min|h)\b( \d+ (s|min)\b)?", "TIME", line)
    line = re.sub(r"\d+(\.\d+)?", "0", line)
    return re.sub(r"\s+", " ", line)


if __name__ == "__main__":
    main()
