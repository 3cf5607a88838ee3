"""The classified wait: every database of the app, before anything touches it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from flask_migrate_sidecar.errors import (
    AppError,
    ConfigurationError,
    SidecarError,
    UnavailableError,
)
from flask_migrate_sidecar.log.logger import get_logger
from flask_migrate_sidecar.log.origin import describe_origin

from .backoff import SHORTEST_PAUSE, next_pause
from .causes import STARTING, UNKNOWN, Verdict
from .connect import Database
from .errors import Diagnosis, diagnose, make_error
from .own_code import find_fault
from .probe import Attempt, NoAnswerError, make_probe

logger: Final = get_logger(__name__)

Fault = AppError | UnavailableError

# Servers count failed logins, and some lock the account (MySQL's FAILED_LOGIN_ATTEMPTS).
_SHORTEST_REFUSED_PAUSE: Final = 0.5
# How long an attempt may take that begins at the deadline.
_LAST_CHANCE: Final = 0.5
# The driver's own limit comes first where it holds: it closes the connection, and says more.
_DRIVER_FIRST: Final = 0.5
_SUMMARY_PERIOD: Final = 5.0


def wait_for_databases(
    databases: Sequence[Database],
    *,
    timeout: float,
    connect_timeout: float,
    refused_grace: float,
    writes: bool,
) -> dict[str, str]:
    """Return once every database answers; they share the deadline and are tried in turn.

    What is not ready is waited for until the deadline. What refuses must go on refusing for the
    grace, for roles and databases are created late; or up to the deadline, if that is sooner.
    Each look has one connection, which is closed before the pause.

    Args:
        databases: main and binds; those in memory are ready by nature.
        timeout: wall clock for all of them, in seconds; 0 tries each one once.
        connect_timeout: the longest that one attempt may take, in seconds.
        refused_grace: how long a refusal must persist, in seconds.
        writes: whether the command writes; then a server that only reads is not ready.

    Returns:
        The server's name and version, for each database's name.

    Raises:
        UnavailableError: one was not ready at the deadline.
        RefusedError: one refused for the grace, or at the deadline.
        AppError: the application's own code would not let it be reached, as long.
    """
    clock = Clock(timeout, connect_timeout, refused_grace)
    visits = [
        Visit(database, make_probe(database, connect_timeout=connect_timeout, writes=writes))
        for database in databases
    ]
    versions: dict[str, str] = {}
    while waiting := [visit for visit in visits if visit.database.name not in versions]:
        visit = min(waiting, key=lambda each: each.due)
        time.sleep(max(0.0, visit.due - time.monotonic()))
        version = visit.look(clock)
        if version is not None:
            versions[visit.database.name] = version
        elif clock.refused_long_enough(visit):
            raise visit.error(clock)
        elif clock.is_over(waiting):
            raise _worst(waiting).error(clock)
    return {database.name: versions[database.name] for database in databases}


@dataclass
class Visit:
    """One database on its way to being ready."""

    database: Database
    probe: Callable[[], str]
    due: float = field(default_factory=time.monotonic)
    tries: int = 0
    found: Diagnosis | None = None
    reason: str = ""
    refused_since: float | None = None
    attempt: Attempt | None = None
    # The line of the application's that the last error came through.
    origin: Mapping[str, Any] = field(default_factory=dict)
    # What the application's own code has raised.
    fault: Fault | None = None
    reported: float = 0.0
    unreported: int = 0

    def look(self, clock: Clock) -> str | None:
        """Try once; give the server's version, or None and know why not."""
        self.tries += 1
        limit = clock.limit
        try:
            version = self._ask(limit)
        except NoAnswerError:
            if self.found and limit < clock.connect_timeout:
                # The deadline cut this try short: what the last full one found says more.
                self.due = clock.next_try(self)
                return None
            reason = f"no answer within {clock.connect_timeout:g} s"
            hint = "check host, port and the network between; or wait longer"
            self._note(Diagnosis(STARTING, Verdict.NOT_READY, reason, hint), clock)
            return None
        except ConfigurationError:
            raise  # of our own making: a driver's error is none of ours
        except Exception as error:
            fault = find_fault(error) or error
            if isinstance(fault, (AppError, UnavailableError)):
                verdict = Verdict.REFUSED if isinstance(fault, AppError) else Verdict.NOT_READY
                found = Diagnosis(UNKNOWN, verdict, str(fault), fault.hint or "")
                self._note(found, clock, fault)
                return None
            # A listener or a creator may have asked another server altogether.
            origin = {n: v for n, v in describe_origin(error).items() if n != "statement"}
            self._note(diagnose(error, self.database.url), clock, origin=origin)
            if self.found is not None and self.found.verdict is Verdict.MISFIT:
                raise self.error(clock) from error
            return None
        elapsed = clock.elapsed
        name = self.database.name
        logger.info("database.ready", database=name, elapsed=elapsed, server_version=version)
        return version

    def error(self, clock: Clock) -> SidecarError:
        """Make the error that ends the wait on account of this database."""
        fields = {"attempts": self.tries, "elapsed": clock.elapsed}
        if self.fault is not None:
            self.fault.fields |= {"database": self.database.name, **fields}
            return self.fault
        if self.found is None:
            reason = "there was no time to try"
            self.found = Diagnosis(STARTING, Verdict.NOT_READY, reason, "wait longer")
        return make_error(
            self.found, self.database.url, self.database.name, **fields, **self.origin
        )

    def _ask(self, limit: float) -> str:
        """Go on with the attempt that has not answered yet, or begin one: never two at once."""
        attempt = self.attempt or Attempt(self.probe)
        self.attempt = attempt
        try:
            version = attempt.result(limit=limit)
        except NoAnswerError:
            raise
        except BaseException:
            self.attempt = None
            raise
        return version

    def _note(
        self,
        found: Diagnosis,
        clock: Clock,
        fault: Fault | None = None,
        origin: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        news = self.reason != found.reason
        self.reason = found.reason
        # Silence does not take a refusal back: PgBouncer keeps clients waiting for 15 s after a
        # server has refused it (server_login_retry), and then repeats the refusal.
        if self.refused_since is None or not found.is_silence:
            self._judge(found)
            self.fault, self.origin = fault, origin
        self.due = clock.next_try(self)
        self.unreported += 1
        if news or time.monotonic() - self.reported >= _SUMMARY_PERIOD:
            self._report(found, clock)

    def _judge(self, found: Diagnosis) -> None:
        self.found = found
        if found.verdict is Verdict.NOT_READY:
            self.refused_since = None
        elif self.refused_since is None:
            self.refused_since = time.monotonic()

    def _report(self, found: Diagnosis, clock: Clock) -> None:
        self.reported = time.monotonic()
        logger.info(
            "database.waiting",
            database=self.database.name,
            attempt=self.tries,
            attempts_since_last_line=self.unreported,
            elapsed=clock.elapsed,
            verdict=found.verdict.value,
            reason=found.reason,
            next_try=round(max(0.0, self.due - self.reported), 3),
        )
        self.unreported = 0


class Clock:
    """The times of one wait, in seconds of the monotonic clock."""

    def __init__(self, timeout: float, connect_timeout: float, refused_grace: float) -> None:
        self.connect_timeout = connect_timeout
        self._once = timeout <= 0
        self._grace = refused_grace
        self._start = time.monotonic()
        self._deadline = self._start + timeout

    @property
    def elapsed(self) -> float:
        """Time since the wait began."""
        return round(time.monotonic() - self._start, 3)

    @property
    def limit(self) -> float:
        """What the next attempt may take; near the deadline only what is left."""
        usual = self.connect_timeout + _DRIVER_FIRST
        left = self._deadline - time.monotonic()
        return usual if self._once else min(usual, max(left, _LAST_CHANCE))

    def is_over(self, waiting: Sequence[Visit]) -> bool:
        """Tell whether the deadline has passed, or each one has had its only try."""
        if self._once:
            return all(visit.tries for visit in waiting)
        return time.monotonic() >= self._deadline

    def refused_long_enough(self, visit: Visit) -> bool:
        """Tell whether the database has refused for the whole grace."""
        since = visit.refused_since
        return not self._once and since is not None and time.monotonic() - since >= self._grace

    def next_try(self, visit: Visit) -> float:
        """Choose the time: soon at first, then slower, never past a time that decides."""
        now = time.monotonic()
        least = SHORTEST_PAUSE if visit.refused_since is None else _SHORTEST_REFUSED_PAUSE
        times = [now + next_pause(now - self._start, least=least), max(now, self._deadline)]
        if visit.refused_since is not None:
            times.append(max(now, visit.refused_since + self._grace))
        return min(times)


def _worst(visits: Sequence[Visit]) -> Visit:
    """Prefer one that refuses: running again will not mend it."""
    refused = [v for v in visits if v.found and v.found.verdict is Verdict.REFUSED]
    return (refused or [v for v in visits if v.found] or list(visits))[0]
