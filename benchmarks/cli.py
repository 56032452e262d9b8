"""How long a person waits for `usance` to begin, beside a Python that only imports click.

    python -m benchmarks.cli [--quick] [--json]

The figures are of whole processes, from start to end: the best of several, ours and the floor in turn. The
bar is 250 ms.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence

from benchmarks.report import Figure, arguments, show

BAR_MS, AIM_MS = 250, 150
ROUNDS, ROUNDS_QUICK = 20, 5
_FLOOR = [sys.executable, "-c", "import click"]
_USANCE = [sys.executable, "-m", "cli"]
_COMPLETION = {"_USANCE_COMPLETE": "bash_complete", "COMP_WORDS": "usance sta", "COMP_CWORD": "1"}
_OURS: Mapping[str, tuple[Sequence[str], Mapping[str, str]]] = {
    "usance --help": (["--help"], {}),
    "usance run --help": (["run", "--help"], {}),
    "usance help exit-codes": (["help", "exit-codes"], {}),
    "completion of a command": ([], _COMPLETION),
    "completion of an option": ([], {**_COMPLETION, "COMP_WORDS": "usance run --bu", "COMP_CWORD": "2"}),
}


def measure(rounds: int) -> Iterator[Figure]:
    for name, (words, environment) in _OURS.items():
        pairs = [(_took_ms([*_USANCE, *words], environment), _took_ms(_FLOOR, {})) for _ in range(rounds)]
        ours, floor = (min(each) for each in zip(*pairs, strict=True))
        yield Figure(
            figure=f"{name}, ms",
            ours=ours,
            floor=floor,
            ratio=ours / floor,
            bar=f"<= {BAR_MS} ms",
            aim=f"<= {AIM_MS} ms",
            ok=ours <= BAR_MS,
        )


def _took_ms(argv: Sequence[str], environment: Mapping[str, str]) -> float:
    begin = time.perf_counter()
    subprocess.run(argv, env={**os.environ, **environment}, check=True, stdout=subprocess.DEVNULL)
    return 1_000 * (time.perf_counter() - begin)


def main() -> None:
    options = arguments(__doc__).parse_args()
    figures = list(measure(ROUNDS_QUICK if options.quick else ROUNDS))
    show("cli", figures, as_json=options.json)
    if any(figure.ok is False for figure in figures):
        sys.exit(1)


if __name__ == "__main__":
    main()
