"""Waiting for a lock that another one holds."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Final

from sqlalchemy.exc import DBAPIError

from flask_migrate_sidecar.errors import LockedError, RefusedError, UnavailableError
from flask_migrate_sidecar.log import get_logger

from .base import Holder, Lock
from .choose import Choice
from .connection import is_unavailable

_log: Final = get_logger(__name__)

# Seconds between two tries: quick for the replicas of one deployment, kind to the server later.
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0


class Wait:
    """The wait for one lock, and what is said meanwhile."""

    def __init__(self, choice: Choice, deadline: float, heartbeat: float) -> None:
        """Prepare the wait.

        Args:
            choice: the lock to wait for.
            deadline: by `time.monotonic()`; the first try is made even after it.
            heartbeat: seconds between two `lock.waiting` events without news.
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
        for pause in pauses():
            problem = self._try()
            if problem is None:
                return
            remaining = self._deadline - time.monotonic()
            if remaining <= 0:
                raise problem
            self._report(problem)
            time.sleep(min(pause, remaining))

    def _try(self) -> LockedError | UnavailableError | None:
        """Try once, and give the reason if the lock is not to be had yet."""
        try:
            if self._lock.try_acquire():
                waited = round(time.monotonic() - self._started, 3)
                fields = self._choice.fields()
                _log.info("lock.acquired", why=self._choice.why, waited=waited, **fields)
                return None
            return _locked(self._choice, self._lock.holder())
        except UnavailableError as error:
            return error
        except DBAPIError as error:
            problem = translate(error, self._lock)
            if isinstance(problem, RefusedError):
                raise problem from error
            return problem

    def _report(self, problem: LockedError | UnavailableError) -> None:
        """Say who is in the way: at first, when that changes, and once per heartbeat."""
        holder = problem.fields.get("holder")
        reason = str(problem) if isinstance(problem, UnavailableError) else None
        now = time.monotonic()
        news = (holder, reason)
        if self._said_at is None or news != self._said or now - self._said_at >= self._heartbeat:
            self._said_at, self._said = now, news
            extra = {"reason": reason} if reason else {"holder": holder}
            _log.info(
                "lock.waiting",
                waited=round(now - self._started, 3),
                remaining=round(max(0.0, self._deadline - now), 3),
                **self._choice.fields(),
                **extra,
            )


def pauses() -> Iterator[float]:
    """Give pauses that grow to a second, jittered so that waiters do not try in step."""
    pause = _FIRST_PAUSE
    while True:
        yield pause * random.uniform(0.5, 1.0)  # noqa: S311 (no secret)
        pause = min(pause * 1.5, _LONGEST_PAUSE)


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


def translate(error: DBAPIError, lock: Lock) -> UnavailableError | RefusedError:
    """Make the driver's error one of ours."""
    name = lock.target.database.name
    message = f"the {lock.kind} lock of database {name} could not be taken: {error.orig}"
    if is_unavailable(error):
        return UnavailableError(message, database=name, kind=lock.kind)
    hint = "grant the missing right, or choose another kind with --lock"
    return RefusedError(message, hint=hint, database=name, kind=lock.kind)
