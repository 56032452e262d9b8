"""Image references, and what to tell of a pull."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.domain.attempt import EndReason

MB = 1_000_000

# Words of engines and registries for "there is no such image, or it is not for you".
_NOT_FOR_YOU = (
    "not found",
    "manifest unknown",
    "denied",
    "unauthorized",
    # A registry that wants to know who asks.
    "no basic auth credentials",
    "authentication required",
    "incorrect username or password",
    "invalid reference",
    "name unknown",
    "no matching manifest",
)


def split_reference(image: str) -> tuple[str, str]:
    """Repository, and tag or digest, which the engine wants apart; `latest` where neither is given."""
    repository, at, digest = image.partition("@")
    if at:
        return repository, digest
    name, colon, tag = image.rpartition(":")
    if not colon or "/" in tag:
        return image, "latest"
    return name, tag


def with_digest(image: str, digest: str) -> str:
    return f"{split_reference(image)[0]}@{digest}"


@dataclass(frozen=True, kw_only=True)
class PullEvent:
    """One line of the engine's report."""

    layer: str
    status: str
    current_bytes: int
    total_bytes: int
    error: str


def event_of(line: Mapping[str, object]) -> PullEvent:
    detail = line.get("progressDetail")
    numbers = detail if isinstance(detail, dict) else {}
    return PullEvent(
        layer=str(line.get("id", "")),
        status=str(line.get("status", "")),
        current_bytes=int(numbers.get("current", 0) or 0),
        total_bytes=int(numbers.get("total", 0) or 0),
        error=str(line.get("error", "")),
    )


@dataclass(kw_only=True)
class PullProgress:
    """Adds up the layers, and tells how fast they come."""

    _loaded: dict[str, tuple[int, int]] = field(default_factory=dict)
    _layers: set[str] = field(default_factory=set)
    _done: set[str] = field(default_factory=set)
    _began_ms: int | None = None

    def add(self, event: PullEvent, now_ms: int) -> str:
        """What to tell a person now."""
        if event.status in _LAYER_WAITS:
            self._layers.add(event.layer)
        elif event.status == "Downloading" and event.total_bytes:
            self._began_ms = now_ms if self._began_ms is None else self._began_ms
            self._loaded[event.layer] = (event.current_bytes, event.total_bytes)
        elif event.status == "Download complete" and event.layer in self._loaded:
            total = self._loaded[event.layer][1]
            self._loaded[event.layer] = (total, total)
        elif event.status in _LAYER_DONE:
            self._layers.add(event.layer)
            self._done.add(event.layer)
        return ", ".join(["pulling image", *self._bytes(now_ms), *self._count()])

    def _bytes(self, now_ms: int) -> list[str]:
        if not self._loaded or self._began_ms is None:
            return []
        current = sum(pair[0] for pair in self._loaded.values())
        total = sum(pair[1] for pair in self._loaded.values())
        told = [f"{current // MB} of {-(-total // MB)} MB"]
        if now_ms > self._began_ms:
            told.append(f"{current * 1_000 // (now_ms - self._began_ms) // MB} MB/s")
        return told

    def _count(self) -> list[str]:
        return [f"{len(self._done)} of {len(self._layers)} layers"] if self._layers else []


# In the engine's words.
_LAYER_WAITS = ("Pulling fs layer", "Waiting")
_LAYER_DONE = ("Pull complete", "Already exists")


def why_no_image(message: str) -> EndReason:
    """Whose fault it is that an image can't be had."""
    low = message.lower()
    if any(words in low for words in _NOT_FOR_YOU):
        return EndReason.IMAGE_UNAVAILABLE
    return EndReason.START_FAILED
