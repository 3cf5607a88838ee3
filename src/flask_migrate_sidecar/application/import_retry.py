"""What to do where an application queries its database at import, and that is not ready."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, NoReturn

from flask_migrate_sidecar.database.backoff import next_pause
from flask_migrate_sidecar.database.causes import LACKING, Verdict
from flask_migrate_sidecar.database.errors import Diagnosis, Moment, diagnose, find_driver_error
from flask_migrate_sidecar.errors import AppError, PendingError, RefusedError, UnavailableError
from flask_migrate_sidecar.log.logger import get_logger
from flask_migrate_sidecar.process.restart import Attempts
from flask_migrate_sidecar.settings.options import Settings

logger: Final = get_logger(__name__)

# A process has to start and to import before it can look again.
_SHORTEST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 2.0
_REPORT_PERIOD: Final = 5.0


def retry_import(
    error: UnavailableError | RefusedError,
    attempts: Attempts,
    settings: Settings,
    give_back: Callable[[], None],
    *,
    is_gate: bool,
) -> NoReturn:
    """Wait a little and start the process again, or give up with the error.

    Args:
        error: what the import ended with; its cause says whether waiting can help.
        attempts: what the processes before this one went through.
        settings: how long to wait, and how long a refusal may persist.
        give_back: gives the descriptors back that the process has captured.
        is_gate: the command waits for another run's migrations (`wait head`), so even a table
            that is missing may come.

    Raises:
        UnavailableError, RefusedError: the one that was given, where waiting does not help.
        AppError: the application would have made what it queries, and may not.
        PendingError: the database answered, but the table that is queried never came.
    """
    found = _diagnose(error)
    attempts.count += 1
    _note_refusal(error, attempts)
    lacks_schema = found is not None and found.cause in LACKING
    if lacks_schema and not is_gate and error.fields.get("left"):
        raise AppError(
            str(error),
            hint="the application migrates while it is imported, which is left to this run, and "
            "then queries what that would have made: leave the query out where "
            "FLASK_MIGRATE_SIDECAR is set",
        ) from error
    left = (settings.head_timeout if is_gate else settings.wait_timeout) - attempts.elapsed
    if left <= 0 or not _can_pass(found, is_gate=is_gate) or _is_refused(attempts, settings):
        error.fields |= {"attempts": attempts.count, "elapsed": attempts.elapsed}
        if lacks_schema and is_gate:
            raise PendingError(str(error), hint=error.hint, **error.fields) from error
        raise error
    pause = min(next_pause(attempts.elapsed, least=_SHORTEST_PAUSE, longest=_LONGEST_PAUSE), left)
    _report(error, attempts, pause)
    time.sleep(pause)
    give_back()
    attempts.start_again()


def _diagnose(error: UnavailableError | RefusedError) -> Diagnosis | None:
    """Ask what the import ended with; None where it was no database."""
    cause = find_driver_error(error.__cause__) if error.__cause__ is not None else None
    return diagnose(cause, moment=Moment.IMPORT) if cause is not None else None


def _can_pass(found: Diagnosis | None, *, is_gate: bool) -> bool:
    if found is None:
        return False
    if found.cause in LACKING:
        return is_gate
    return found.verdict not in (Verdict.FAILED, Verdict.MISFIT) and not found.is_lasting


def _note_refusal(error: UnavailableError | RefusedError, attempts: Attempts) -> None:
    if not isinstance(error, RefusedError):
        attempts.refused_since = None
    elif attempts.refused_since is None:
        attempts.refused_since = time.monotonic()


def _is_refused(attempts: Attempts, settings: Settings) -> bool:
    """Tell whether a refusal has persisted for the whole grace."""
    since = attempts.refused_since
    return since is not None and time.monotonic() - since >= settings.refused_grace


def _report(error: UnavailableError | RefusedError, attempts: Attempts, pause: float) -> None:
    """Log the first failure, each new reason, and once in a while that it goes on."""
    reason, now = str(error.fields.get("reason", error)), time.monotonic()
    if reason == attempts.reason and now - attempts.reported < _REPORT_PERIOD:
        return
    attempts.reason, attempts.reported = reason, now
    logger.info(
        "database.waiting",
        attempt=attempts.count,
        elapsed=attempts.elapsed,
        reason=reason,
        next_try=round(pause, 3),
        why="the application queries its database while it is imported",
    )
