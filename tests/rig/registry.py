"""A real image registry of our own on the loopback interface; engines trust it there without TLS."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from tests.rig.parts import Folder, find_program, free_port, spawn, stop, sweep, wait_until

_KIND = "registry"


# Whom a registry knows that does not give to everybody.
USER, PASSWORD = "buyer", "not-for-everybody"
_HTPASSWD = f"{USER}:$2b$04$gL3n33nVC9c3Wl4wnHYmE.xEMBFBNXKEKMJwlJWMvneOe4icn5n.S\n"


class Registry:
    """A running registry. An image of it is named `{host}/name:tag`."""

    def __init__(self, *, is_private: bool = False) -> None:
        program = find_program("docker-registry", how="apt-get install docker-registry")
        sweep(_KIND, shutil.rmtree)
        self._folder = Folder(_KIND)
        self.host = f"127.0.0.1:{free_port()}"
        config = self.path / "config.yml"
        config.write_text(
            "version: 0.1\n"
            "log: {level: warn, accesslog: {disabled: true}}\n"
            f"storage: {{filesystem: {{rootdirectory: {self.path}/images}}, delete: {{enabled: true}}}}\n"
            f"http: {{addr: '{self.host}'}}\n"
        )
        self._is_private = is_private
        if is_private:
            (self.path / "htpasswd").write_text(_HTPASSWD)
            with config.open("a") as more:
                more.write(f"auth: {{htpasswd: {{realm: rig, path: '{self.path}/htpasswd'}}}}\n")
        self._process = spawn([str(program), "serve", str(config)], log=self.path / "log")
        try:
            wait_until(self._answers, "the registry answers")
        except BaseException:
            self.stop()
            raise

    @property
    def path(self) -> Path:
        return self._folder.path

    def stop(self) -> None:
        stop(self._process)
        self._folder.remove()

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f"the registry ended at once:\n{(self.path / 'log').read_text()}")
        try:
            with urlopen(f"http://{self.host}/v2/", timeout=5) as reply:
                return bool(reply.status == 200)
        except HTTPError as error:
            return self._is_private and error.code == 401
        except (URLError, ConnectionError):
            return False


@contextmanager
def running_registry(*, is_private: bool = False) -> Iterator[Registry]:
    """A registry for the length of a block; raises parts.MissingError where it is not installed."""
    registry = Registry(is_private=is_private)
    try:
        yield registry
    finally:
        registry.stop()
