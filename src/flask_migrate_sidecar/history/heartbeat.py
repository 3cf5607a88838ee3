"""Says that a revision still runs, and who blocks it: a hang that nobody explains is the worst."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any, Final

from flask_migrate_sidecar.database.connect import Database
from flask_migrate_sidecar.database.dialect import find_dialect
from flask_migrate_sidecar.log.logger import get_logger
from flask_migrate_sidecar.process.threads import Event, start_thread

from .environment import Environments
from .progress import Progress

logger: Final = get_logger(__name__)


@contextmanager
def beating(
    progress: Progress,
    environments: Environments,
    databases: Sequence[Database],
    *,
    period: float,
    connect_timeout: float,
) -> Iterator[None]:
    """Log `migration.running` for each revision that runs longer than the period.

    Args:
        progress: knows which revision runs, and since when.
        environments: know on which connection.
        databases: where to ask who blocks it, on a connection of our own.
        period: seconds between two lines; 0 logs none.
        connect_timeout: seconds that one attempt to connect may take.
    """
    if not period:
        yield
        return
    over = Event()
    by_name = {database.name: database for database in databases}

    def beat() -> None:
        while not over.wait(period):
            step, since = progress.running, progress.running_since
            if step is None or monotonic() - since < period:
                continue
            database, session = by_name.get(step.place.database), environments.session
            found: dict[str, Any] = {}
            if database is not None and session is not None:
                found = explain_wait(database, session, connect_timeout)
            elapsed = round(monotonic() - since, 1)
            logger.info("migration.running", **step.describe(), elapsed=elapsed, **found)

    thread = start_thread(beat, name="flask-migrate-heartbeat")
    try:
        yield
    finally:
        over.set()
        thread.join(connect_timeout)


def explain_wait(database: Database, session: int, connect_timeout: float) -> dict[str, Any]:
    """Find what a migrating session waits for, and the sessions that it waits for.

    Args:
        database: the database that is migrated.
        session: backend process (PostgreSQL) or connection id (MariaDB, MySQL) of the migration.
        connect_timeout: seconds that the attempt to connect may take.
    """
    dialect = find_dialect(database.url.get_backend_name())
    # Whatever keeps us from asking, missing rights among it, must not disturb the migration.
    with suppress(Exception):
        engine = database.engine(connect_timeout=connect_timeout)
        with engine.connect() as connection:
            return dialect.explain_wait(connection, session)
    return {"waits_for": None, "blocked_by": []}
