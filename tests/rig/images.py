"""Container images made of this machine's own programs: no registry, no network, no root's rights.

A program is copied with the shared libraries that `ldd` names, to the paths where its loader will look for
them, and the engine imports the archive as an image of one layer.
"""

import io
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import docker
from docker.errors import ImageNotFound

TINY = "usance-rig/tiny:1"
PYTHON = "usance-rig/python:1"

# What a shell script in a test or in the demo may use; nearly all are in Debian's essential packages. A
# machine that lacks one gets an image without it.
_COMMANDS = (
    "sh basename cat chmod cp cut date dd df dirname du env expr find grep head hostname id ln ls md5sum "
    "mkdir mknod mktemp mv nproc printf ps pwd rm rmdir sed seq sha256sum sleep sort stat sync tail tee "
    "timeout touch tr uname uniq wc whoami yes"
)
_PYTHON_LEFT_OUT = {"dist-packages", "ensurepip", "idlelib", "lib2to3", "site-packages", "test", "turtledemo"}
_SMALL_FILES = {
    "/etc/passwd": "root:x:0:0::/root:/bin/sh\njob:x:10001:10001::/tmp:/bin/sh\n",
    "/etc/group": "root:x:0:\njob:x:10001:\n",
    "/etc/nsswitch.conf": "hosts: files dns\n",
}
_MODES = {"/dev": 0o755, "/proc": 0o555, "/sys": 0o555, "/tmp": 0o1777}
_ELF = b"\x7fELF"


def tiny_image(client: docker.DockerClient, ref: str = TINY, changes: Sequence[str] = ()) -> str:
    """An image of a shell and some fifty small commands; `changes` are Dockerfile lines such as `ENV A=b`.

    An image of that name is taken as it is.
    """
    return _image(client, ref, changes, _tiny_archive)


def python_image(client: docker.DockerClient, ref: str = PYTHON, changes: Sequence[str] = ()) -> str:
    """The tiny image and the running Python, `python3`, with its standard library."""
    return _image(client, ref, changes, _python_archive)


class _Archive:
    """A root file system in the making, as a tar archive in memory."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()
        self._tar = tarfile.TarFile(fileobj=self._buffer, mode="w")
        self._seen: set[str] = set()
        self._stored_as: dict[Path, str] = {}
        for path, mode in _MODES.items():
            self._folder(path, mode)
        for path, text in _SMALL_FILES.items():
            entry = self._entry(path, 0o644)
            if entry is not None:
                entry.size = len(text.encode())
                self._tar.addfile(entry, io.BytesIO(text.encode()))

    def copy(self, source: Path, path: str) -> None:
        """Put the file that `source` leads to at `path`; a second copy of a file is a link to the first."""
        real = source.resolve()
        status = real.stat()
        entry = self._entry(path, status.st_mode & 0o755)
        if entry is None:
            return
        entry.mtime = int(status.st_mtime)  # Python's compiled files remember their sources' times
        if real in self._stored_as:
            entry.type, entry.linkname = tarfile.LNKTYPE, self._stored_as[real]
            self._tar.addfile(entry)
            return
        self._stored_as[real] = entry.name
        entry.size = status.st_size
        with real.open("rb") as content:
            self._tar.addfile(entry, content)

    def link(self, path: str, target: str) -> None:
        entry = self._entry(path, 0o777)
        if entry is not None:
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            self._tar.addfile(entry)

    def bytes(self) -> bytes:
        self._tar.close()
        return self._buffer.getvalue()

    def _entry(self, path: str, mode: int) -> tarfile.TarInfo | None:
        """A new entry, after its parents; None where there is one already."""
        if path in self._seen:
            return None
        self._seen.add(path)
        for parent in reversed(Path(path).parents[:-1]):
            self._folder(str(parent), 0o755)
        entry = tarfile.TarInfo(path.lstrip("/"))
        entry.mode = mode
        return entry

    def _folder(self, path: str, mode: int) -> None:
        if path not in self._seen:
            self._seen.add(path)
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            self._tar.addfile(entry)


def _image(
    client: docker.DockerClient, ref: str, changes: Sequence[str], make: Callable[[], _Archive]
) -> str:
    try:
        client.images.get(ref)
    except ImageNotFound:
        repository, tag = ref.rsplit(":", 1)
        lines = ['CMD ["sh"]', *changes]
        client.api.import_image_from_data(make().bytes(), repository=repository, tag=tag, changes=lines)
    return ref


def _tiny_archive() -> _Archive:
    archive = _Archive()
    found = {name: Path(found_at) for name in _COMMANDS.split() if (found_at := shutil.which(name))}
    programs = {name: path for name, path in found.items() if _is_elf(path)}
    for name, path in programs.items():
        archive.copy(path, f"/bin/{name}")
    _copy_libraries(archive, programs.values())
    return archive


def _python_archive() -> _Archive:
    archive = _tiny_archive()
    executable = Path(sys.executable).resolve()
    archive.copy(executable, str(executable))
    archive.link("/bin/python3", str(executable))
    library = Path(sysconfig.get_path("stdlib"))
    extensions = []
    for path in _library_files(library):
        archive.copy(path, str(path))
        if path.suffix == ".so":
            extensions.append(path)
    _copy_libraries(archive, [executable, *extensions])
    return archive


def _library_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name in _PYTHON_LEFT_OUT or path.name.startswith("config-") or ".opt-" in path.name:
            continue
        if path.is_dir():
            yield from _library_files(path)
        elif path.is_file():
            yield path


def _copy_libraries(archive: _Archive, programs: Iterable[Path]) -> None:
    # ldd's own exit status only says that one of them was static.
    listing = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False).stdout
    for library in sorted(set(re.findall(r"(/\S+) \(0x", listing))):
        archive.copy(Path(library), library)


def _is_elf(path: Path) -> bool:
    with path.open("rb") as content:
        return content.read(4) == _ELF
