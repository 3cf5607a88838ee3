"""A Docker engine, and containers of the sidecar's image."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest

from servers import MissingServerError
from sidecar_runs import Result

ROOT = Path(__file__).parents[1]
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
# As a cluster that enforces the "restricted" Pod Security Standard would run it.
HARDENED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
START_TIMEOUT = 60.0
# Debian's mirrors and the package index are on the way.
BUILD_TIMEOUT = 600.0


class Engine:
    """A Docker engine: the one that runs already, else one of our own for this test run."""

    def __init__(self) -> None:
        # A client of Debian's builds with Debian's engine; a newer one may lack the buildx plugin.
        found = next(filter(None, (shutil.which(p) for p in ("/usr/bin/docker", "docker"))), None)
        if not found:
            raise MissingServerError("no docker: install the Debian package docker.io")
        self.program = found
        self.env = {**os.environ, "DOCKER_BUILDKIT": "1"}
        self._daemon: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None

    def start(self) -> None:
        """Find an engine that answers, or start one.

        Raises:
            MissingServerError: none answers, and none can be started.
        """
        if not self._answers():
            self._start_daemon()

    def stop(self) -> None:
        """Stop the engine if it is ours."""
        if self._daemon and self._folder:
            self._daemon.terminate()
            self._daemon.wait(START_TIMEOUT)
            # The engine leaves the host's network namespace mounted.
            namespace = self._folder / "exec" / "netns" / "default"
            subprocess.run(["umount", namespace], check=False, capture_output=True)
            shutil.rmtree(self._folder, ignore_errors=True)

    def __call__(
        self, *arguments: str | Path, check: bool = True, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run `docker` to its end.

        Args:
            *arguments: its command line.
            check: whether a failure is the test's end.
            timeout: seconds.
        """
        command = [self.program, *arguments]
        result = subprocess.run(
            command, env=self.env, capture_output=True, text=True, timeout=timeout, check=False
        )
        if check and result.returncode:
            raise RuntimeError(f"docker {arguments[0]} failed:\n{result.stdout}{result.stderr}")
        return result

    def inspect(self, name: str) -> dict[str, Any]:
        """Tell what the engine knows of an image or a container."""
        [found] = json.loads(self("inspect", name).stdout)
        return dict(found)

    def has(self, image: str) -> bool:
        """Tell whether the image is there or can be pulled."""
        if self("image", "inspect", image, check=False).returncode == 0:
            return True
        return self("pull", "--quiet", image, check=False, timeout=300).returncode == 0

    def build(self, tag: str, context: Path, file: Path | None = None, **arguments: str) -> None:
        """Build an image as a machine behind a TLS-inspecting proxy does it.

        Args:
            tag: name of the image.
            context: folder that is sent to the engine.
            file: the Dockerfile, where it is not the context's own.
            **arguments: build arguments.
        """
        options = ["--network", "host", "--tag", tag, "--file", str(file or context / "Dockerfile")]
        if AUTHORITIES.exists():
            options += ["--secret", f"id=ca,src={AUTHORITIES}"]
        for name, value in arguments.items():
            options += ["--build-arg", f"{name}={value}"]
        self("build", *options, str(context), timeout=BUILD_TIMEOUT)

    def _answers(self) -> bool:
        return self("version", check=False).returncode == 0

    def _start_daemon(self) -> None:
        daemon = shutil.which("dockerd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if not daemon or os.geteuid():
            raise MissingServerError("no Docker engine answers, and only root could start dockerd")
        self._folder = Path(tempfile.mkdtemp(prefix="sidecar-docker-"))
        socket = f"unix://{self._folder}/socket"
        folders = {"data-root": "data", "exec-root": "exec", "pidfile": "pid"}
        options = [f"--{option}={self._folder / name}" for option, name in folders.items()]
        with (self._folder / "log").open("wb") as log:
            self._daemon = subprocess.Popen(
                [daemon, f"--host={socket}", *options], stdout=log, stderr=log
            )
        self.env["DOCKER_HOST"] = socket
        with suppress(TimeoutError):
            await_true(lambda: self._answers() or self._daemon_ended())
        if not self._answers():
            log_text = (self._folder / "log").read_text()
            self.stop()
            raise MissingServerError(f"dockerd did not start:\n{log_text[-2000:]}")

    def _daemon_ended(self) -> bool:
        return self._daemon is not None and self._daemon.poll() is not None


@dataclass(frozen=True)
class Sidecar:
    """Runs containers of the image, hardened and on the host's network, where the servers are."""

    engine: Engine
    image: str

    def options(
        self, env: Mapping[str, str], mounts: Mapping[Path, str], network: str = "host"
    ) -> list[str]:
        """Give the options of `docker run`.

        Args:
            env: variables.
            mounts: source by target in the container, `:ro` behind it where it should be.
            network: name of a network.
        """
        options = [*HARDENED, "--network", network]
        for name, value in env.items():
            options += ["--env", f"{name}={value}"]
        for source, target in mounts.items():
            options += ["--volume", f"{source}:{target}"]
        return options

    def run(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        mounts: Mapping[Path, str] | None = None,
        more: Sequence[str] = (),
        network: str = "host",
    ) -> Result:
        """Run the sidecar to its end.

        Args:
            *arguments: its command line.
            env: variables.
            mounts: source by target.
            more: further options of `docker run`.
            network: name of a network.
        """
        options = self.options(env or {}, mounts or {}, network)
        done = self.engine("run", "--rm", *options, *more, self.image, *arguments, check=False)
        return Result(done.returncode, done.stdout, done.stderr)

    def start(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        mounts: Mapping[Path, str] | None = None,
    ) -> "Container":
        """Start the sidecar and leave it running."""
        options = self.options(env or {}, mounts or {})
        started = self.engine("run", "--detach", *options, self.image, *arguments)
        return Container(self.engine, started.stdout.strip())


@dataclass(frozen=True)
class Container:
    """A container that runs on its own, removed at the end of the block."""

    engine: Engine
    name: str

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Remove it, whatever it does."""
        self.engine("rm", "--force", "--volumes", self.name)

    def stop(self) -> float:
        """Stop it as `docker stop` does by default, and give the seconds that took."""
        start = time.monotonic()
        self.engine("stop", self.name)
        return time.monotonic() - start

    def result(self) -> Result:
        """Wait for its end and give what it left."""
        code = int(self.engine("wait", self.name).stdout)
        logs = self.engine("logs", self.name)
        return Result(code, logs.stdout, logs.stderr)

    def logs(self) -> str:
        """Give what it wrote to stderr so far."""
        return self.engine("logs", self.name).stderr


def find_program(name: str, package: str) -> str:
    """Find a program that a Python package brings; without it the test skips, or in CI fails."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if not found:
        outcome = pytest.fail if os.environ.get("CI") else pytest.skip
        outcome(f"no {name}: install {package} with pip")
    return found


def await_true(condition: Callable[[], bool], timeout: float = START_TIMEOUT) -> None:
    """Return once the condition holds.

    Raises:
        TimeoutError: it did not in time.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout} s")
        time.sleep(0.05)
