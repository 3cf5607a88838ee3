"""Runs `flask-migrate` for the tests, and reads what it left."""

import fcntl
import json
import os
import re
import subprocess
import sys
import termios
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, TypeVar

from zygote import Zygote, zygote_of

Line = dict[str, Any]
T = TypeVar("T")

# Seconds that a process which should end is given; fewer where faults are put in on purpose.
DEADLINE = float(os.environ.get("SIDECAR_TEST_DEADLINE", "240"))
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
LEVELS = {"debug", "info", "warning", "error", "critical"}


class Result(subprocess.CompletedProcess[str]):
    """What one run left."""

    def __init__(self, returncode: int, stdout: str, stderr: str) -> None:
        """Keep it."""
        super().__init__([], returncode, stdout, stderr)

    @property
    def log(self) -> list[Line]:
        """The log, each line of which must be well formed."""
        return read_log(self.stderr)

    @property
    def last(self) -> Line:
        """The last line of the log."""
        return self.log[-1]


class Launcher:
    """Runs a module to its end, in processes that a zygote forks.

    Args:
        folder: for the outputs of a run.
        module: what to run.
        zygote: by default the one that the tests share.
    """

    def __init__(
        self, folder: Path, module: str = "flask_migrate_sidecar", zygote: Zygote | None = None
    ) -> None:
        self._outputs = [folder / "stdout", folder / "stderr"]
        self._module = module
        self._zygote = zygote or zygote_of()

    def __call__(self, cwd: Path, *arguments: str, env: Mapping[str, str] | None = None) -> Result:
        """Run the module in a folder.

        Args:
            cwd: folder of the application.
            *arguments: the command line.
            env: variables to add.
        """
        with ExitStack() as stack:
            files: list[IO[bytes]] = [stack.enter_context(Path(os.devnull).open("rb"))]
            files += [stack.enter_context(path.open("wb")) for path in self._outputs]
            run = self._zygote.start(
                cwd,
                self._module,
                *arguments,
                env=environment_of(env or {}),
                streams=[file.fileno() for file in files],
            )
            # A test that is given up leaves no run behind.
            stack.callback(run.close)
            code = run.wait()
        return Result(code, *(path.read_text(encoding="utf-8") for path in self._outputs))


# Container runtimes cut what is longer.
LONGEST_LINE = 16_000


def read_log(text: str) -> list[Line]:
    """Read a log, and hold each line to the form that the contract promises."""
    lines = []
    for number, line in enumerate(text.splitlines(), start=1):
        event = json.loads(line, parse_constant=_refuse_constant)
        assert isinstance(event, dict), f"line {number}: {line}"
        assert list(event)[:4] == ["timestamp", "level", "event", "logger"], f"{number}: {line}"
        assert RFC3339.fullmatch(event["timestamp"]), f"line {number}: {line}"
        assert event["level"] in LEVELS, f"line {number}: {line}"
        assert len(line.encode()) < LONGEST_LINE, f"line {number} has {len(line.encode())} bytes"
        lines.append(event)
    return lines


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def outputs(log: list[Line]) -> list[str]:
    """Return what user code printed."""
    return [line["text"] for line in log if line["event"] == "output"]


def events(log: list[Line], name: str) -> list[Line]:
    """Return the lines of one event."""
    return [line for line in log if line["event"] == name]


def patiently(run: Callable[[float], T], was_enough: Callable[[T], bool], least: float = 1) -> T:
    """Run with a time limit, and with a longer one where a busy machine did not get far enough.

    For claims about what happens at a limit once something else has come before it.

    Args:
        run: takes the limit, in seconds.
        was_enough: tells whether what has to come first did.
        least: the first limit.
    """
    for limit in (least, 4 * least, 16 * least, 64 * least):
        result = run(limit)
        if was_enough(result):
            break
    return result


def count_waiting(descriptor: int) -> int:
    """Count the bytes that wait in a pipe."""
    found = fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4))
    return int.from_bytes(found, sys.byteorder)


def prepend(path: Path, text: str) -> None:
    """Put text before the text of a file."""
    path.write_text(text + path.read_text(encoding="utf-8"), encoding="utf-8")


def append(path: Path, text: str) -> None:
    """Put text behind the text of a file."""
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


def revision_file(app: Path, revision: str) -> Path:
    """Return the file of a revision."""
    [path] = (app / "migrations/versions").glob(f"{revision}*.py")
    return path


def environment_of(names: Mapping[str, str]) -> dict[str, str]:
    """Return the environment that programs under test get, with variables added."""
    return {**os.environ, **names}
