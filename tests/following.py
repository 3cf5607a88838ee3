"""Runs `flask-migrate` beside the test, and follows its log."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from sidecar_runs import LONGEST_LINE, Line, Result, environment_of
from zygote import zygote_of


class FollowedRun:
    """One run of `flask-migrate`, ended with the block, or else with the test, at the latest.

    Args:
        cwd: folder of the application.
        *arguments: the command line.
        env: variables to add.
    """

    def __init__(self, cwd: Path, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        # No pipe, which would have to be emptied beside the log.
        self._stdout = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - see `close`
        reading, writing = os.pipe()
        self._log = os.fdopen(reading, encoding="utf-8")
        with os.fdopen(writing, "wb"), Path(os.devnull).open("rb") as nothing:
            self.process = zygote_of().start(
                cwd,
                "flask_migrate_sidecar",
                *arguments,
                env=environment_of(env or {}),
                streams=[nothing.fileno(), self._stdout.fileno(), writing],
            )
        self._lines: list[str] = []
        self.events: list[Line] = []
        FOLLOWED.append(self)

    def __enter__(self) -> Self:
        """Return the run."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Leave no process behind."""
        self.close()

    def close(self) -> None:
        """End the run at once, and leave nothing open."""
        self.process.close()
        self._log.close()
        self._stdout.close()

    def await_event(self, *names: str, **fields: object) -> Line:
        """Read the log up to an event of one of the names, with these fields, and give it."""
        while (found := self._read()) is not None:
            if found["event"] in names and fields.items() <= found.items():
                return found
        raise AssertionError(f"the run ended without {names} {fields}: {self.events[-1:]}")

    def finish(self) -> int:
        """Read the log to its end, and give the exit code."""
        while self._read() is not None:
            pass
        return self.process.wait()

    def result(self) -> Result:
        """Read the log to its end, and give all that the run left."""
        code = self.finish()
        self._stdout.seek(0)
        return Result(code, self._stdout.read(), "".join(self._lines))

    @property
    def last(self) -> Line:
        """The last line that was read."""
        return self.events[-1]

    def named(self, event: str) -> list[Line]:
        """Give the events of one name that were read."""
        return [found for found in self.events if found["event"] == event]

    def _read(self) -> Line | None:
        line = self._log.readline()
        if not line:
            return None
        self._lines.append(line)
        assert len(line.encode()) < LONGEST_LINE
        self.events.append(json.loads(line))
        return self.events[-1]


# What tests have started; conftest.py ends each when its test is over.
FOLLOWED: list[FollowedRun] = []
