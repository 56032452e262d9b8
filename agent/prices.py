"""Prices named at the machine, by `usance-agent price`. They win over those of the settings."""

import json
from collections.abc import Mapping
from pathlib import Path

from agent.files import replace_durably

_FILE = "prices.json"


def load(state_dir: Path) -> dict[str, int]:
    """Micro-credits for one GPU-hour, by model; 0 for not for sale. Raises ValueError where it is damaged."""
    try:
        content = json.loads((state_dir / _FILE).read_bytes())
    except FileNotFoundError:
        return {}
    return {str(model): int(micro) for model, micro in content.items()}


def save(state_dir: Path, prices: Mapping[str, int]) -> None:
    replace_durably(state_dir / _FILE, json.dumps(dict(prices), indent=1).encode())


def over(configured: Mapping[str, int], named: Mapping[str, int]) -> dict[str, int]:
    """A model that is not for sale stays there with its 0: without it, it would have that of all others."""
    return {**configured, **named}
