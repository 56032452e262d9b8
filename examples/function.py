"""A function runs somewhere else and its result comes back: `python examples/function.py`.

Its source goes there as a script, its arguments and its result as JSON.
"""

import inspect
import json
from collections.abc import Callable
from typing import Any

from cli.client.sync import SyncMarket
from cli.errors import Refused
from cli.library import connect_sync, job


def halve(number: float) -> float:
    return number / 2


def call(market: SyncMarket, function: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401 -- as JSON is
    """What the function gives; it may use nothing but what it imports itself. Raises RuntimeError."""
    told = json.dumps(json.dumps(arguments))
    name = function.__name__
    script = f"import json\n{inspect.getsource(function)}\nprint(json.dumps({name}(*json.loads({told}))))"
    spec = job(["python3", "-c", script], image="python:3.12", budget="0.10", name=name)
    ended = market.wait_job(market.submit_job(spec).job_id, limit_ms=600_000)
    if ended.exit_code != 0:
        raise RuntimeError(f"{name}: {ended.detail}; see: usance logs {ended.job_id}")
    return json.loads(market.stdout_of(ended.job_id))


def main() -> None:
    with connect_sync() as market:
        try:
            print(call(market, halve, 42))
        except Refused as refused:
            raise SystemExit(f"{refused.code}: {refused}") from refused


if __name__ == "__main__":
    main()
