"""What is removed with the agent is the agent's, and nothing else."""

import json
from pathlib import Path

from agent.domain.images import ImagePolicy
from agent.executor.images import Image, Images
from agent.settings import ExecutorKind, Settings
from agent.uninstall import uninstall
from runtime.clock import SystemClock


class Store:
    """Images of an engine; one of them is in use."""

    def __init__(self) -> None:
        self.images = ["fetched", "used", "sellers-own"]

    def find(self, reference: str) -> Image | None:
        return Image(image_id=reference, volumes=(), size_bytes=1) if reference in self.images else None

    def remove(self, image_id: str) -> bool:
        if image_id == "used":
            return False
        self.images.remove(image_id)
        return True

    def root(self) -> Path:
        return Path("/")


def test_a_machine_that_never_was_a_host_is_left_as_it_was(tmp_path):
    told: list[str] = []
    settings = Settings(state_dir=tmp_path / "state", executor=ExecutorKind.PROCESS)
    settings.state_dir.mkdir(mode=0o700)
    (settings.state_dir / "prices.json").write_text("{}")
    uninstall(settings, end_jobs=False, say=told.append)
    assert list(tmp_path.iterdir()) == []
    assert told == [f"removed {settings.state_dir}"]


def test_what_is_not_the_agents_stays(tmp_path):
    told: list[str] = []
    (tmp_path / "thesis.tex").write_text("years of work")
    uninstall(Settings(state_dir=tmp_path, executor=ExecutorKind.PROCESS), end_jobs=False, say=told.append)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    assert told[-1].startswith(f"{tmp_path} stays")


def test_images_that_were_fetched_for_jobs_go_unless_somebody_uses_them(tmp_path):
    memory = tmp_path / "images.json"
    fetched = [{"image_id": name, "uses": 1, "used_at_ms": 1} for name in ("fetched", "used")]
    memory.write_text(json.dumps(fetched))
    store = Store()
    Images(store, "/nowhere", ImagePolicy(), memory, SystemClock()).remove_all()
    assert store.images == ["used", "sellers-own"]
