"""The longest that the import of an application may take."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from flask_migrate_sidecar.errors import AppError
from flask_migrate_sidecar.process.threads import Event, start_thread

# Time for the import to come to an end by itself once it was told to.
_GRACE_SECONDS = 2.0


class ImportTimeoutError(BaseException):
    """Ends an import; no `except Exception` of the application may swallow it."""


@contextmanager
def limit_time(
    seconds: float | None, force: Callable[[Any], NoReturn] | None = None
) -> Iterator[None]:
    """Raise where the import takes longer than the setting allows.

    Args:
        seconds: the longest that it may take; None for as long as it likes.
        force: ends the process where the import swallows even that, or sits in C code.

    Raises:
        AppError: it took longer.
    """
    if not seconds:
        yield
        return

    over = Event()

    def stop(*_: object) -> None:
        raise ImportTimeoutError

    def enforce() -> None:
        if not over.wait(seconds + _GRACE_SECONDS) and force is not None:
            force(_explain(seconds))

    start_thread(enforce, name="flask-migrate-import-limit")
    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    except ImportTimeoutError as error:
        raise _explain(seconds) from error
    finally:
        over.set()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _explain(seconds: float) -> AppError:
    return AppError(
        f"the import of the application took longer than {seconds:g} s",
        hint="the traceback shows where it was; raise --app-timeout if that is expected",
    )
