"""What a seller's machine is to offer, as the agent's settings."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class AgentTerms:
    """What a seller's machine is to offer."""

    executor: str = "process"
    # Empty where it runs processes.
    docker_host: str = ""
    price: str = "3600"
    # 0: the real ones.
    simulated_gpus: int = 1
    trusted_accounts: tuple[str, ...] = ()
    record_seconds: int = 1
    labels: Mapping[str, str] = field(default_factory=dict)
    # What runs a command in the network namespace where the agent is to live.
    inside: tuple[str, ...] = ()
    # Lines of its own for the settings' first part.
    more: str = ""

    def within(self, inside: tuple[str, ...]) -> "AgentTerms":
        return replace(self, inside=inside)

    def settings(self, state_dir: Path) -> str:
        lines = [
            f'state_dir = "{state_dir}"',
            f'executor = "{self.executor}"',
            f"allow_process_executor = {'true' if self.executor == 'process' else 'false'}",
            f"trusted_accounts = {json.dumps(self.trusted_accounts)}",
            f"record_seconds = {self.record_seconds}",
            *([f'docker_host = "{self.docker_host}"'] if self.docker_host else []),
            # Those of the tests are in no registry, and the machines that run them are not always roomy.
            "local_images = true\ndisk_reserve_gb = 0",
            self.more,
            "[labels]",
            *(f"{name} = {json.dumps(value)}" for name, value in self.labels.items()),
            f'[prices]\n"*" = "{self.price}"',
            f"[simulated_gpus]\ncount = {self.simulated_gpus}",
            'model = "SIMULATED NVIDIA GeForce RTX 4090"\nvram_gib = 24',
        ]
        return "\n".join(lines) + "\n"
