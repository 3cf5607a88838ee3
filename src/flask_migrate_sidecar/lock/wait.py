"""Waiting for a lock that another one holds."""

from __future__ import annotations

import time
from typing import Final

from sqlalchemy.exc import DBAPIError

from flask_migrate_sidecar.database.backoff import next_pause
from flask_migrate_sidecar.database.causes import LACKING, Verdict
from flask_migrate_sidecar.database.errors import Moment, diagnose
from flask_migrate_sidecar.database.own_code import find_fault
from flask_migrate_sidecar.errors import (
    ConfigurationError,
    LockedError,
    RefusedError,
    UnavailableError,
)
from flask_migrate_sidecar.log.logger import get_logger

from .base import Holder, Lock
from .choose import Choice

logger: Final = get_logger(__name__)


class Wait:
    """The wait for one lock, and what is said meanwhile."""

    def __init__(self, choice: Choice, deadline: float, heartbeat: float) -> None:
        """Prepare the wait.

        Args:
            choice: the lock to wait for.
            deadline: by `time.monotonic()`; the first try is made even after it.
            heartbeat: seconds between two `lock.waiting` events without news; 0 for none.
        """
        self._choice = choice
        self._lock = choice.lock
        self._deadline = deadline
        self._heartbeat = heartbeat
        self._started = time.monotonic()
        self._said_at: float | None = None
        self._said: tuple[object, str | None] = (None, None)

    def run(self) -> None:
        """Try until the lock is ours or the time is over.

        Raises:
            LockedError: another one holds it to the end.
            RefusedError: the right to take it is missing.
            UnavailableError: the server cannot be reached.
        """
        while True:
            problem = self._try()
            if problem is None:
                return
            remaining = self._deadline - time.monotonic()
            if remaining <= 0:
                raise problem
            self._report(problem)
            time.sleep(min(next_pause(time.monotonic() - self._started), remaining))

    def _try(self) -> LockedError | UnavailableError | None:
        """Try once, and give the reason if the lock is not to be had yet."""
        try:
            if self._lock.try_acquire():
                waited = round(time.monotonic() - self._started, 3)
                fields = self._choice.fields()
                logger.info("lock.acquired", why=self._choice.why, waited=waited, **fields)
                return None
            return _locked(self._choice, self._lock.holder())
        except UnavailableError as error:
            return error
        except DBAPIError as error:
            problem = explain_lock_error(error, self._lock)
            if not isinstance(problem, UnavailableError):
                raise problem from error
            return problem
        except Exception as error:
            # A listener of the application's sees the statements of a lock as well.
            fault = find_fault(error)
            if isinstance(fault, UnavailableError):
                return fault
            if fault is None:
                raise
            raise fault from error

    def _report(self, problem: LockedError | UnavailableError) -> None:
        """Say who is in the way: at first, when that changes, and once per heartbeat."""
        holder = problem.fields.get("holder")
        reason = str(problem) if isinstance(problem, UnavailableError) else None
        now = time.monotonic()
        news = (holder, reason)
        is_due = self._said_at is not None and 0 < self._heartbeat <= now - self._said_at
        if self._said_at is None or news != self._said or is_due:
            self._said_at, self._said = now, news
            extra = {"reason": reason} if reason else {"holder": holder}
            logger.info(
                "lock.waiting",
                waited=round(now - self._started, 3),
                remaining=round(max(0.0, self._deadline - now), 3),
                **self._choice.fields(),
                **extra,
            )


def _locked(choice: Choice, holder: Holder | None) -> LockedError:
    known = holder.describe() if holder else {}
    shown = ", ".join(f"{name} {value}" for name, value in known.items()) or "not known"
    return LockedError(
        f"another migrator holds the {choice.lock.kind} lock of database"
        f" {choice.databases[0]} (holder: {shown})",
        hint="wait for it to end, or allow more time with --lock-timeout",
        holder=known or None,
        **choice.fields(),
    )


def explain_lock_error(
    error: DBAPIError, lock: Lock
) -> UnavailableError | RefusedError | ConfigurationError:
    """Make the driver's error one of ours."""
    database = lock.target.database
    fields = {"database": database.name, "kind": lock.kind}
    message = f"the {lock.kind} lock of database {database.name} could not be taken: {error.orig}"
    found = diagnose(error, database.url, Moment.LOCK)
    if found.cause in LACKING:
        return ConfigurationError(
            f"{message}: a table of that name is there and has another form",
            hint="rename or drop the table, or choose another kind with --lock",
            **fields,
        )
    if found.verdict is not Verdict.REFUSED:
        return UnavailableError(message, **fields)
    hint = "grant the missing right, or choose another kind with --lock"
    return RefusedError(message, hint=hint, **fields)
