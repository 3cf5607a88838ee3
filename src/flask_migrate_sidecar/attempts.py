"""Starts the process again while an import fails because its database is not ready.

A half-imported application cannot be imported a second time, so the process begins anew
(`os.execve`), with the environment, the folder and the command line that it was started with. When
it first began goes along in a variable, so that the deadline stays what it was.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import MutableMapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, NoReturn, Self

from .errors import PendingError, RefusedError, UnavailableError

if TYPE_CHECKING:
    from .settings import Settings
    from .streams import Streams

VARIABLE = "_FLASK_MIGRATE_SIDECAR_ATTEMPTS"
_SHORTEST_PAUSE = 0.25
_LONGEST_PAUSE = 2.0
_REPORT_PERIOD = 5.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass
class Attempts:
    """What earlier processes of this run went through; times are the system's monotonic clock.

    Args:
        started: when the first process began.
        count: how many imports have failed.
        reported: when that was logged last.
        reason: why the last one failed.
        refused_since: when a server began to refuse, None where it does not.
        environ: the environment that the process was started with.
        folder: the working directory that it was started in.
    """

    started: float
    count: int = 0
    reported: float = 0.0
    reason: str = ""
    refused_since: float | None = None
    environ: dict[str, str] = field(default_factory=dict)
    folder: str = "."

    @classmethod
    def take_over(cls, environ: MutableMapping[str, str]) -> Self:
        """Read what the process before this one left, and keep what the next one will need."""
        before = environ.pop(VARIABLE, None)
        known = json.loads(before) if before else {"started": time.monotonic()}
        return cls(**known, environ=dict(environ), folder=os.getcwd())  # noqa: PTH109 - as text

    @property
    def is_first(self) -> bool:
        """Whether no process came before this one."""
        return self.count == 0

    def try_again(
        self,
        error: UnavailableError | RefusedError,
        settings: Settings,
        streams: Streams,
        *,
        is_gate: bool,
    ) -> NoReturn:
        """Wait a little and start the process again, or give up with the error.

        Args:
            error: why the import failed; `waits` among its fields says whether waiting can help.
            settings: how long to wait, and how long a refusal may persist.
            streams: where the descriptors are given back.
            is_gate: the command waits for another run's migrations (`wait head`), so even a table
                that is missing may come.

        Raises:
            UnavailableError, RefusedError: the one that was given, at the deadline.
            PendingError: the database answered, but the table that is queried never came.
        """
        now = time.monotonic()
        self.count += 1
        self._note(error, now)
        lacks_schema = error.fields.pop("schema", False)
        waits = error.fields.pop("waits", False) or (lacks_schema and is_gate)
        left = self.started - now + (settings.head_timeout if is_gate else settings.wait_timeout)
        refused = self.refused_since is not None and (
            now - self.refused_since >= settings.refused_grace
        )
        if not waits or left <= 0 or refused:
            error.fields |= {"attempts": self.count, "elapsed": round(now - self.started, 3)}
            if lacks_schema and is_gate:
                raise PendingError(str(error), hint=error.hint, **error.fields) from error
            raise error
        pause = min(max((now - self.started) / 10, _SHORTEST_PAUSE), _LONGEST_PAUSE, left)
        self._report(error, now, pause)
        time.sleep(pause)
        self._start_again(streams)

    def _note(self, error: UnavailableError | RefusedError, now: float) -> None:
        if not isinstance(error, RefusedError):
            self.refused_since = None
        elif self.refused_since is None:
            self.refused_since = now

    def _report(self, error: UnavailableError | RefusedError, now: float, pause: float) -> None:
        """Log the first failure, each new reason, and once in a while that it goes on."""
        from .log import get_logger

        reason = str(error.fields.get("reason", error))
        if reason == self.reason and now - self.reported < _REPORT_PERIOD:
            return
        self.reason, self.reported = reason, now
        get_logger(__name__).info(
            "database.waiting",
            attempt=self.count,
            elapsed=round(now - self.started, 3),
            reason=reason,
            next_try=round(pause, 3),
            why="the application queries its database while it is imported",
        )

    def _start_again(self, streams: Streams) -> NoReturn:
        streams.restore()
        # A signal that comes between the two processes waits until the next one can handle it:
        # the mask outlives execve (POSIX), handlers do not, and process 1 of a container would
        # not even notice.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        os.chdir(self.folder)
        known = asdict(self)
        environ = known.pop("environ") | {VARIABLE: ""}
        known.pop("folder")
        environ[VARIABLE] = json.dumps(known)
        os.execve(sys.executable, sys.orig_argv, environ)  # noqa: S606 - the very same program
