"""Runs `flask-migrate` for the tests, and reads what it left."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TypeVar

Line = dict[str, Any]
T = TypeVar("T")

# Seconds that a process which should end is given; fewer where faults are put in on purpose.
DEADLINE = float(os.environ.get("SIDECAR_TEST_DEADLINE", "240"))
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
LEVELS = {"debug", "info", "warning", "error", "critical"}

# Forks a process for each request, as `python -m MODULE` would be, but with the big packages
# imported already: a fifth of the time.
SERVER = """
import contextlib, importlib, json, os, runpy, sys

for name in sys.argv[1:]:
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
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
        sys.path[0] = request["cwd"]
        sys.argv = [request["module"], *request["arguments"]]
        sys.orig_argv = [sys.executable, "-m", *sys.argv]
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
        sys.exit()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(code, flush=True)
"""
# What is big and belongs to others; ours is imported anew by each run.
IMPORTS = (
    *("alembic.autogenerate", "alembic.command", "flask.cli", "flask_sqlalchemy", "sqlite3"),
    *("psycopg", "pymysql", "sqlalchemy.dialects.mysql", "sqlalchemy.dialects.postgresql"),
    *("sqlalchemy.dialects.sqlite", "structlog"),
)


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
    """A process that forks a run for each request.

    Args:
        folder: for the outputs of a run.
        module: what to run.
        python: the interpreter and its options.
    """

    def __init__(
        self,
        folder: Path,
        module: str = "flask_migrate_sidecar",
        python: Sequence[str] = (sys.executable,),
    ) -> None:
        self._outputs = [str(folder / "stdout"), str(folder / "stderr")]
        self._module = module
        self._command = [*python, "-c", SERVER, *IMPORTS]
        self._server = self._start()

    def __call__(self, cwd: Path, *arguments: str, env: Mapping[str, str] | None = None) -> Result:
        """Run the module in a folder.

        Args:
            cwd: folder of the application.
            *arguments: the command line.
            env: variables to add.
        """
        request = {
            "module": self._module,
            "cwd": str(cwd),
            "arguments": arguments,
            "env": environment_of(env or {}),
            "outputs": self._outputs,
        }
        try:
            code = self._ask(request)
        except BaseException:
            # A test that was given up must not leave its answer to the next one.
            self._stop()
            self._server = self._start()
            raise
        texts = (Path(path).read_text(encoding="utf-8") for path in self._outputs)
        return Result(code, *texts)

    def _ask(self, request: Mapping[str, object]) -> int:
        """Have a run made, and give its exit code."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def _stop(self) -> None:
        # With what it has forked.
        os.killpg(self._server.pid, signal.SIGKILL)
        self._server.wait()
        for stream in (self._server.stdin, self._server.stdout):
            with suppress(BrokenPipeError):
                if stream is not None:
                    stream.close()

    def __enter__(self) -> Self:
        """Return the launcher."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """End the process."""
        self._stop()


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
