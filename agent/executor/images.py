"""The images on this host: fetched by digest, watched while they unpack, removed when they only lie there."""

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import Coroutine
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

from agent.domain.attempt import EndReason
from agent.domain.confidential import Login
from agent.domain.images import CachedImage, ImagePolicy, evictions, is_short, is_too_full, why_too_large
from agent.domain.pull import PullProgress, with_digest
from agent.executor.ports import Progress, StartError
from agent.executor.pull import StalledError, digest_of, pull
from agent.files import replace_durably
from runtime.clock import Clock

_TELL_MS = 1_000
_LOOK_MS = 100
_TRIES = 3

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Image:
    """One that is here."""

    image_id: str
    volumes: tuple[str, ...]
    size_bytes: int


class ImageStore(Protocol):
    """The engine's images. Its errors come through."""

    def find(self, reference: str) -> Image | None: ...

    def remove(self, image_id: str) -> bool:
        """Says whether it is gone; one that a container uses stays."""
        ...

    def root(self) -> Path:
        """Where the engine keeps them."""
        ...


class Images:
    """All that jobs need of them."""

    def __init__(
        self, store: ImageStore, socket_path: str, policy: ImagePolicy, memory: Path, clock: Clock
    ) -> None:
        self._store = store
        self._socket_path = socket_path
        self._policy = policy
        self._clock = clock
        # Of the images that we have fetched: the others are the seller's own, and not ours to remove.
        self._memory = memory
        self._cached = _remembered(memory)
        self._pulls = 0

    async def have(self, reference: str, progress: Progress, login: Login | None = None) -> Image:
        """The image, fetched where it is not here. Raises StartError."""
        if self._policy.local_images:
            found = await asyncio.to_thread(self._store.find, reference)
            if found is not None:
                return found
        exact = reference
        if "@" not in reference:
            progress("asking for the image")
            # What a tag means now in the word of its registry, not what it meant here once; and whoever names
            # an image of the seller's own, which no registry gives to everybody, does not get it.
            exact = with_digest(reference, await digest_of(self._socket_path, reference, login))
        found = await asyncio.to_thread(self._store.find, exact)
        if found is None:
            found = await self._fetch(exact, progress, login)
        elif exact == reference and self._is_private(found.image_id):
            # It is here for somebody else; who names it has to get it from its registry as well.
            progress("asking for the image")
            await digest_of(self._socket_path, exact, login)
        self._note_use(found.image_id)
        return found

    def remove_all(self) -> None:
        """Those that were fetched for jobs. One that somebody else uses stays."""
        for image_id in list(self._cached):
            self._evict(image_id)

    def _is_private(self, image_id: str) -> bool:
        image = self._cached.get(image_id)
        return image is None or image.is_private

    async def _fetch(self, exact: str, progress: Progress, login: Login | None) -> Image:
        await asyncio.to_thread(self._make_room)
        for left in reversed(range(_TRIES)):
            try:
                await self._watched(self._pull(exact, progress, login))
                break
            except StalledError as error:
                if not left:
                    raise
                log.warning("%s; trying again", error)
                progress("the pull stalled; trying again")
        found = await asyncio.to_thread(self._store.find, exact)
        if found is None:
            raise StartError(EndReason.START_FAILED, f"{exact} was pulled and is not here")
        fetched = CachedImage(
            image_id=found.image_id, uses=0, used_at_ms=self._clock.wall_ms(), is_private=login is not None
        )
        self._remember(fetched)
        too_large = why_too_large(found.size_bytes, self._policy)
        if too_large:
            await asyncio.to_thread(self._evict, found.image_id)
            raise StartError(EndReason.IMAGE_UNAVAILABLE, too_large)
        return found

    async def _pull(self, exact: str, progress: Progress, login: Login | None) -> None:
        told_ms = 0
        added = PullProgress()
        async with contextlib.aclosing(pull(self._socket_path, exact, login)) as events:
            async for event in events:
                now_ms = self._clock.boot_ms()
                detail = added.add(event, now_ms)
                if now_ms - told_ms >= _TELL_MS:
                    told_ms = now_ms
                    progress(detail)

    async def _watched(self, pulling: Coroutine[None, None, None]) -> None:
        """Leave a pull, which makes the engine leave it, when it takes more of the disk than it may."""
        self._pulls += 1
        tasks = [asyncio.ensure_future(pulling), asyncio.ensure_future(self._watch_disk())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._pulls -= 1
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, asyncio.CancelledError):
                raise outcome

    async def _watch_disk(self) -> None:
        root = await asyncio.to_thread(self._store.root)
        before = _free_bytes(root)
        while True:
            await self._clock.sleep_ms(_LOOK_MS)
            free = _free_bytes(root)
            # What others fetch at the same time is not this image's fault.
            too_large = why_too_large(before - free, self._policy) if self._pulls == 1 else ""
            if too_large:
                raise StartError(EndReason.IMAGE_UNAVAILABLE, too_large)
            if is_too_full(free, self._policy):
                raise StartError(EndReason.START_FAILED, "the host's disk ran full meanwhile")

    def _make_room(self) -> None:
        root = self._store.root()
        for image in evictions(self._cached.values(), self._clock.wall_ms()):
            if not is_short(_free_bytes(root), self._policy):
                return
            self._evict(image.image_id)
        if is_too_full(_free_bytes(root), self._policy):
            raise StartError(EndReason.START_FAILED, "the host's disk is too full for another image")

    def _evict(self, image_id: str) -> None:
        if self._store.remove(image_id):
            log.info("image %s made room", image_id)
            del self._cached[image_id]
            self._save()

    def _note_use(self, image_id: str) -> None:
        image = self._cached.get(image_id)
        if image is not None:
            self._remember(replace(image, uses=image.uses + 1, used_at_ms=self._clock.wall_ms()))

    def _remember(self, image: CachedImage) -> None:
        self._cached[image.image_id] = image
        self._save()

    def _save(self) -> None:
        replace_durably(self._memory, json.dumps([asdict(image) for image in self._cached.values()]).encode())


def _remembered(path: Path) -> dict[str, CachedImage]:
    """What is forgotten is only never removed."""
    try:
        found = [CachedImage(**fields) for fields in json.loads(path.read_bytes())]
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError):
        log.warning("%s can't be read; images fetched so far are not removed to make room", path)
        return {}
    return {image.image_id: image for image in found}


def _free_bytes(path: Path) -> int:
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize
