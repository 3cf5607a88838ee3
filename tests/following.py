"""Runs `flask-migrate` beside the test, and follows its log."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from conftest import clean_environment

# Seconds; a run that takes longer is killed, so that no test waits for ever.
DEADLINE = float(os.environ.get("SIDECAR_TEST_DEADLINE", "60"))


class FollowedRun:
    """One run of `flask-migrate`, ended with the block at the latest.

    Args:
        cwd: folder of the application.
        *arguments: the command line.
        env: variables to add.
    """

    def __init__(self, cwd: Path, *arguments: str, env: Mapping[str, str]) -> None:
        self.events: list[dict[str, Any]] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flask_migrate_sidecar", *arguments],
            cwd=cwd,
            env={**clean_environment(), **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._timer = threading.Timer(DEADLINE, self.process.kill)

    def __enter__(self) -> Self:
        """Begin to count the time."""
        self._timer.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        """Leave no process behind."""
        self._timer.cancel()
        self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()

    def await_event(self, event: str, **fields: object) -> dict[str, Any]:
        """Read the log up to an event with these fields, and give it."""
        while (found := self._read()) is not None:
            if found["event"] == event and fields.items() <= found.items():
                return found
        raise AssertionError(f"the run ended without {event} {fields}: {self.events[-1:]}")

    def finish(self) -> int:
        """Read the log to its end, and give the exit code."""
        while self._read() is not None:
            pass
        return self.process.wait(DEADLINE)

    @property
    def last(self) -> dict[str, Any]:
        """The last line that was read."""
        return self.events[-1]

    def named(self, event: str) -> list[dict[str, Any]]:
        """Give the events of one name that were read."""
        return [found for found in self.events if found["event"] == event]

    def _read(self) -> dict[str, Any] | None:
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        if not line:
            return None
        self.events.append(json.loads(line))
        return self.events[-1]
