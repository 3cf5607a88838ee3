"""One look at a database: a login is not enough, a query must answer, and writing must be open."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Final

from sqlalchemy import Engine, literal, select

from flask_migrate_sidecar.process.threads import Event, start_thread

from .connect import Database
from .dialect import find_dialect
from .sqlite import probe_file

# A signal that comes just before a lock is awaited does not end the waiting (Python checks for
# signals between bytecodes), so one long wait would now and then sleep through an interrupt.
_GLANCE: Final = 0.2


class NoAnswerError(Exception):
    """An attempt has taken its time; it goes on by itself."""


class Attempt:
    """A look at a database on a thread of its own, so that its time limit really holds.

    Drivers cannot promise one: name resolution blocks without a limit, libpq counts anew for each
    address, a query has none, and psycopg2 would not let an interrupt through meanwhile. The
    thread closes its connection itself, whenever it gets out of the driver.

    Args:
        probe: opens, looks, closes; returns the server's version.
    """

    def __init__(self, probe: Callable[[], str]) -> None:
        self._answered = Event()
        self._answer: str | BaseException = ""
        start_thread(self._run, probe, name="database-probe")

    def result(self, *, limit: float) -> str:
        """Give the server's version, or raise what the probe raised.

        Args:
            limit: how long to wait for it, in seconds.

        Raises:
            NoAnswerError: the limit has passed; the attempt still runs, ask again later.
        """
        end = time.monotonic() + limit
        while not self._answered.wait(min(_GLANCE, max(0.0, end - time.monotonic()))):
            if time.monotonic() >= end:
                raise NoAnswerError
        if isinstance(self._answer, BaseException):
            raise self._answer
        return self._answer

    def _run(self, probe: Callable[[], str]) -> None:
        try:
            self._answer = probe()
        except BaseException as error:  # noqa: BLE001 - raised again where it is awaited
            self._answer = error
        self._answered.set()


def probe_server(engine: Engine, *, writes: bool) -> str:
    """Log in, ask, and leave; give the server's name and version.

    Args:
        engine: without a pool, so that nothing stays open.
        writes: whether a server that only reads will do.

    Raises:
        UnusableError: it answers, but only reads.
    """
    dialect = find_dialect(engine.dialect.name)
    with engine.connect() as connection:
        connection.scalar(select(literal(1)))
        if writes:
            dialect.require_writes(connection)
        return dialect.version(connection)


def make_probe(database: Database, *, connect_timeout: float, writes: bool) -> Callable[[], str]:
    """Make the look that fits a database.

    Args:
        database: what to look at.
        connect_timeout: the longest that connecting and each answer may take, in seconds.
        writes: whether a database that only reads will do.
    """
    if database.url.get_backend_name() == "sqlite":
        return partial(probe_file, database.url, writes=writes)
    engine = database.probe_engine(timeout=connect_timeout)
    return partial(probe_server, engine, writes=writes)
