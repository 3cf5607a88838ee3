"""What can go wrong, one class per exit code.

    SidecarError                    1  an error that was not foreseen
    ├── UsageError                  2  the command line is wrong
    ├── ConfigurationError          3  the settings do not fit the surroundings
    ├── AppError                    4  the application cannot be had
    ├── UnavailableError            5  a database cannot be reached yet: run again
    ├── RefusedError                6  a database answered and said no
    ├── LockedError                 7  another one holds the lock: run again
    ├── MigrationError              8  env.py, a revision or its SQL raised
    ├── HistoryError                9  the revisions do not fit together
    └── PendingError               10  not at head, or models and database differ
    Interrupted        129/130/131/143 SIGHUP, SIGINT, SIGQUIT, SIGTERM (no SidecarError: see there)
    └── KilledError            128 + n  any other signal, told by process 1

Nothing else in the code base writes an exit code as a number.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress
from typing import ClassVar


class SidecarError(Exception):
    """An error that ends the run with an exit code of its own.

    Args:
        message: what happened, in one sentence.
        hint: what to do next.
        fields: data for the log line (`database`, `revision`, ...).
    """

    exit_code: ClassVar[int] = 1
    name: ClassVar[str] = "internal"
    retry: ClassVar[str] = "maybe"
    default_hint: ClassVar[str | None] = None
    shows_traceback: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str | None = None, **fields: object) -> None:
        super().__init__(message)
        self.hint = hint or self.default_hint
        self.fields = fields


class UsageError(SidecarError):
    """Unknown command or option, malformed value, a command that this Flask-Migrate lacks."""

    exit_code = 2
    name = "usage"
    retry = "no"
    default_hint = "see flask-migrate --help"


class ConfigurationError(SidecarError):
    """No app and no repository, no URL, a driver that is missing, a lock that does not fit."""

    exit_code = 3
    name = "configuration"
    retry = "no"


class AppError(SidecarError):
    """The application, or a module of it, could not be imported or created."""

    exit_code = 4
    name = "app"
    retry = "no"
    shows_traceback = True


class UnavailableError(SidecarError):
    """No usable login before the deadline, or the connection was lost on the way."""

    exit_code = 5
    name = "unavailable"
    retry = "yes"


class RefusedError(SidecarError):
    """The server answered and said no: waiting longer changes nothing."""

    exit_code = 6
    name = "refused"
    retry = "no"


class LockedError(SidecarError):
    """A lock was not to be had in time."""

    exit_code = 7
    name = "locked"
    retry = "yes"


class MigrationError(SidecarError):
    """`env.py`, the body of a revision or its SQL raised."""

    exit_code = 8
    name = "failed"
    retry = "no"
    shows_traceback = True


class HistoryError(SidecarError):
    """The revisions, or the database's place among them, do not fit together."""

    exit_code = 9
    name = "history"
    retry = "no"


class PendingError(SidecarError):
    """The database is not at head, or the models differ from it: an answer, not a fault."""

    exit_code = 10
    name = "pending"
    retry = "by design"


class Interrupted(KeyboardInterrupt):
    """A signal asked the run to end.

    Derives from KeyboardInterrupt because psycopg 3 then cancels the statement that runs, and
    because `except Exception` in an application must not swallow it.
    """

    name = "interrupted"

    def __init__(self, number: signal.Signals, *, is_forced: bool = False) -> None:
        super().__init__(f"interrupted by {number.name}")
        self.signal = number
        # The run did not come to its own end in time.
        self.is_forced = is_forced
        self.fields: dict[str, object] = {}

    @property
    def exit_code(self) -> int:
        """128 plus the signal's number, as shells and container runtimes report it."""
        return 128 + self.signal


class KilledError(Interrupted):
    """A signal ended the run before it could say a word."""

    name = "killed"

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number)
        self.args = (f"the run was killed by {number.name}",)
        self.hint = (
            "the kernel sends SIGKILL at the limit of memory: then 'kubectl describe pod' says "
            "OOMKilled; what was not committed is rolled back by the server"
            if number is signal.SIGKILL
            else "native code of a driver or of the application's crashed, or somebody sent the "
            "signal; what was not committed is rolled back by the server"
        )


def describe(value: object) -> str:
    """Give the text of an object; one that cannot tell its own must not cost the line."""
    try:
        return str(value)
    except Interrupted:
        raise
    except BaseException:  # noqa: BLE001 - code of the application
        return f"<{type(value).__name__} without a text>"


def passed_through(error: BaseException, package: str, function: str | None = None) -> bool:
    """Tell whether an error came through a package that is installed, or a function of it.

    By its files, for the application may call folders and functions of its own like theirs.

    Args:
        error: what was raised.
        package: the name of the package, or of a module, which has been imported.
        function: the name of the function; None for any.
    """
    module = sys.modules.get(package)
    file = getattr(module, "__file__", None)
    if file is None:
        return False
    # A module that is no package shares its folder with others.
    folder = os.path.dirname(file) + os.sep  # noqa: PTH120 - no more than the text is compared
    place = folder if hasattr(module, "__path__") else file
    return any(
        frame.filename.startswith(place) and function in (None, frame.name)
        for frame in traceback.extract_tb(error.__traceback__)
    )


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Follow an exception to those that it was raised from or during, and that it wraps."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        link = waiting.pop()
        if link is not None and id(link) not in seen:
            seen.add(id(link))
            yield link
            # The last one in is the next one out: what SQLAlchemy wraps comes first.
            waiting.append(link.__cause__ or link.__context__)
            with suppress(Exception):  # a property of the application's may raise
                wrapped = getattr(link, "orig", None)
                waiting.append(wrapped if isinstance(wrapped, BaseException) else None)
