"""Starts the process again, with what the ones before it went through.

A half-imported application cannot be imported a second time, so the process begins anew
(`os.execve`), with the environment, the folder and the command line that it was started with. When
it first began goes along in a variable, so that a deadline stays what it was.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import MutableMapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Final, NoReturn, Self

from flask_migrate_sidecar.errors import ConfigurationError

from .early_signals import SIGNALS
from .os_exit import EXECVE

VARIABLE: Final = "_FLASK_MIGRATE_SIDECAR_ATTEMPTS"
_KNOWN: Final = frozenset({"started", "count", "reported", "reason", "refused_since"})


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

    started: float = field(default_factory=time.monotonic)
    count: int = 0
    reported: float = 0.0
    reason: str = ""
    refused_since: float | None = None
    environ: dict[str, str] = field(default_factory=dict)
    folder: str = "."

    @classmethod
    def take_over(cls, environ: MutableMapping[str, str]) -> Self:
        """Read what the process before this one left, and keep what the next one will need.

        Raises:
            ConfigurationError: the working directory was deleted.
        """
        known = _read_known(environ.pop(VARIABLE, ""))
        try:
            folder = os.getcwd()  # noqa: PTH109 - as text
        except OSError as error:
            raise ConfigurationError(
                f"the working directory is not there any more: {error.strerror}",
                hint="start in a folder that exists, or mount the application's anew",
            ) from error
        return cls(environ=dict(environ), folder=folder, **known)

    @property
    def is_first(self) -> bool:
        """Whether no process came before this one."""
        return self.count == 0

    @property
    def elapsed(self) -> float:
        """Seconds since the first process began."""
        return round(time.monotonic() - self.started, 3)

    def start_again(self) -> NoReturn:
        """Replace the process by a new one; the descriptors must have been given back."""
        # A signal that comes between the two processes waits until the next one can handle it:
        # the mask outlives execve (POSIX), handlers do not, and process 1 of a container would
        # not even notice.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        # One that may not be entered again is not needed either: nothing can be relative to it.
        with suppress(PermissionError):
            os.chdir(self.folder)
        known = asdict(self)
        environ, _folder = known.pop("environ"), known.pop("folder")
        environ[VARIABLE] = json.dumps(known)
        EXECVE(sys.executable, sys.orig_argv, environ)


def _read_known(text: str) -> dict[str, Any]:
    """Read what `start_again` wrote; what somebody else put into the variable says nothing."""
    with suppress(ValueError, TypeError, LookupError):
        known = json.loads(text)
        times = known["started"], known["reported"], known["refused_since"] or 0.0
        if {*known} == _KNOWN and all(isinstance(time, float) for time in times):
            return {**known, "count": int(known["count"]), "reason": str(known["reason"])}
    return {}
