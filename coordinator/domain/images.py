"""Which images a seller takes: names as an engine reads them, compared with the seller's patterns."""

from dataclasses import dataclass
from functools import lru_cache

_REGISTRY = "docker.io"
# Other names of the same one.
_REGISTRY_TOO = frozenset({"index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"})


@dataclass(frozen=True, kw_only=True)
class ImagePolicy:
    """`allowed` empty is any; what is denied is denied also where it is allowed."""

    allowed: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()

    def takes(self, image: str) -> bool:
        if any(matches(pattern, image) for pattern in self.denied):
            return False
        return not self.allowed or any(matches(pattern, image) for pattern in self.allowed)


ANY_IMAGE = ImagePolicy()


@lru_cache(maxsize=4_096)
def matches(pattern: str, image: str) -> bool:
    """A pattern without a tag or digest stands for all of them."""
    wanted = pattern if pattern.startswith("*") else full_name(pattern)
    name = full_name(image)
    return _glob(wanted, name) or (_bare(wanted) == wanted and _glob(wanted, _bare(name)))


def full_name(reference: str) -> str:
    """With the registry and, in the default one, the folder that stand for what is left out."""
    first, slash, rest = reference.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        first, rest = _REGISTRY, reference
    elif first in _REGISTRY_TOO:
        first = _REGISTRY
    if first == _REGISTRY and "/" not in rest:
        rest = f"library/{rest}"
    return f"{first}/{rest}"


def _bare(name: str) -> str:
    """Without tag and digest."""
    folder, slash, last = name.partition("@")[0].rpartition("/")
    return folder + slash + last.partition(":")[0]


def _glob(pattern: str, text: str) -> bool:
    """In one pass from left to right, whatever the pattern: it is a stranger's, and so is the text."""
    head, *parts = pattern.split("*")
    if not parts:
        return pattern == text
    if not text.startswith(head):
        return False
    place = len(head)
    for part in parts[:-1]:
        found = text.find(part, place)
        if found < 0:
            return False
        place = found + len(part)
    return len(text) - place >= len(parts[-1]) and text.endswith(parts[-1])
