"""Runs `flask-migrate` for the tests, and reads what it left."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

Line = dict[str, Any]

RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
LEVELS = {"debug", "info", "warning", "error", "critical"}

# Forks a process for each request, as `python -m flask_migrate_sidecar` would be, but with the big
# packages imported already: a fifth of the time.
SERVER = """
import json, os, runpy, sys
import alembic.autogenerate, alembic.command, flask.cli, flask_sqlalchemy, sqlite3
import sqlalchemy.dialects.sqlite, structlog

for line in sys.stdin:
    request = json.loads(line)
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for descriptor in (1, 2):
            flags = os.O_CREAT | os.O_TRUNC | os.O_WRONLY
            os.dup2(os.open(request["outputs"][descriptor - 1], flags), descriptor)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        sys.path.insert(0, request["cwd"])
        sys.argv = ["flask-migrate", *request["arguments"]]
        runpy.run_module("flask_migrate_sidecar", run_name="__main__", alter_sys=True)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(code, flush=True)
"""


@dataclass(frozen=True)
class Result:
    """What one run left."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def log(self) -> list[Line]:
        """The log, each line of which must be well formed."""
        return read_log(self.stderr)

    @property
    def last(self) -> Line:
        """The last line of the log."""
        return self.log[-1]


class Launcher:
    """A process that forks a run for each request."""

    def __init__(self, folder: Path, environment: Callable[[], dict[str, str]]) -> None:
        self._outputs = [str(folder / "stdout"), str(folder / "stderr")]
        self._environment = environment
        self._server = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, cwd: Path, *arguments: str, env: Mapping[str, str] | None = None) -> Result:
        """Run `flask-migrate` in a folder.

        Args:
            cwd: folder of the application.
            *arguments: the command line.
            env: variables to add.
        """
        request = {
            "cwd": str(cwd),
            "arguments": arguments,
            "env": {**self._environment(), **(env or {})},
            "outputs": self._outputs,
        }
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        code = int(self._server.stdout.readline())
        texts = (Path(path).read_text(encoding="utf-8") for path in self._outputs)
        return Result(code, *texts)

    def __enter__(self) -> Self:
        """Return the launcher."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """End the process."""
        for stream in (self._server.stdin, self._server.stdout):
            if stream is not None:
                stream.close()
        self._server.wait()


def read_log(text: str) -> list[Line]:
    """Read a log, and hold each line to the form that the contract promises."""
    lines = []
    for number, line in enumerate(text.splitlines(), start=1):
        event = json.loads(line, parse_constant=_refuse_constant)
        assert isinstance(event, dict), f"line {number}: {line}"
        assert list(event)[:4] == ["timestamp", "level", "event", "logger"], f"{number}: {line}"
        assert RFC3339.fullmatch(event["timestamp"]), f"line {number}: {line}"
        assert event["level"] in LEVELS, f"line {number}: {line}"
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


def start(
    cwd: Path, *arguments: str, env: Mapping[str, str], stderr: int = subprocess.PIPE
) -> subprocess.Popen[str]:
    """Start `flask-migrate` and do not wait for its end.

    Args:
        cwd: folder of the application.
        *arguments: the command line.
        env: the whole environment.
        stderr: descriptor for the log, a pipe by default.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "flask_migrate_sidecar", *arguments],
        cwd=cwd,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )


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
    """Return the environment of the tests with variables added."""
    return {**os.environ, **names}
