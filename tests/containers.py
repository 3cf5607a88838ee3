"""The sidecar's image, and stand-ins for the images that a machine cannot pull."""

import functools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from docker_engine import (
    BUILD_TIMEOUT,
    ROOT,
    Container,
    Engine,
    Sidecar,
    await_true,
    find_program,
)
from servers import MissingServerError

__all__ = [
    "IMAGE",
    "ROOT",
    "Container",
    "Engine",
    "Images",
    "Sidecar",
    "await_true",
    "find_program",
]

STANDINS = ROOT / "tests" / "container" / "standins"
STANDIN_BASE = "local/python:3-slim"
STANDIN_SERVER = "local/database-server"
IMAGE = "flask-migrate-sidecar:test"
OFFICIAL_BASE = "python:3.13-slim"
OFFICIAL_SERVERS = {"POSTGRES_IMAGE": "postgres:18", "MARIADB_IMAGE": "mariadb:11.8"}
# Its Python is the Dockerfile's default one.
DEBIAN = "trixie"


@dataclass
class Images:
    """The images of the tests, each made when it is first asked for."""

    engine: Engine
    build_seconds: dict[str, float] = field(default_factory=dict)

    @functools.cached_property
    def base(self) -> str:
        """The official image or, where none can be pulled, a Debian with Python.

        Raises:
            MissingServerError: neither can be had.
        """
        candidates = (os.environ.get("BASE_IMAGE", ""), STANDIN_BASE, OFFICIAL_BASE)
        for image in filter(None, candidates):
            if self.engine.has(image):
                return image
        self._timed("base", self._import_debian)
        return STANDIN_BASE

    @functools.cached_property
    def sidecar(self) -> str:
        """The image under test."""
        self.build(IMAGE, ROOT)
        return IMAGE

    @functools.cached_property
    def servers(self) -> dict[str, str]:
        """Variables that name the images of the database servers in compose.yaml."""
        named = {name: os.environ.get(name, image) for name, image in OFFICIAL_SERVERS.items()}
        if all(self.engine.has(image) for image in named.values()):
            return named
        self.build(STANDIN_SERVER, STANDINS)
        return dict.fromkeys(OFFICIAL_SERVERS, STANDIN_SERVER)

    def build(self, tag: str, context: Path, file: Path | None = None, **arguments: str) -> None:
        """Build an image on the base image."""
        arguments = {"BASE_IMAGE": self.base, **arguments}
        self._timed(tag, lambda: self.engine.build(tag, context, file, **arguments))

    def _timed(self, name: str, work: Callable[[], None]) -> None:
        start = time.monotonic()
        work()
        self.build_seconds[name] = time.monotonic() - start

    def _import_debian(self) -> None:
        """Make a Debian with Python, and like the official images without byte code."""
        if not shutil.which("debootstrap") or os.geteuid():
            raise MissingServerError(
                "no base image can be pulled, and only root with debootstrap could make one"
            )
        with tempfile.TemporaryDirectory() as folder:
            packages = "ca-certificates,python3,python3-venv,python3-pip"
            options = ["--variant=minbase", f"--include={packages}", DEBIAN, folder]
            _run(["debootstrap", *options])
            for unwanted in ("*.pyc", "*.deb"):
                _run(["find", folder, "-xdev", "-name", unwanted, "-delete"])
            command = ["tar", "-C", folder, "-c", "."]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as tar:
                self._import(tar)

    def _import(self, tar: subprocess.Popen[bytes]) -> None:
        path = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        command = [self.engine.program, "import", "-c", path, "-", STANDIN_BASE]
        subprocess.run(
            command, stdin=tar.stdout, env=self.engine.env, check=True, capture_output=True
        )


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=BUILD_TIMEOUT)
