"""Says that a revision still runs, and who blocks it: a hang that nobody explains is the worst."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, text

from .log import get_logger
from .migrations import Observer

if TYPE_CHECKING:
    from .databases import Database

logger = get_logger(__name__)

# What the migrating session waits for, and the sessions that keep it from going on.
# PostgreSQL manual, 9.27.1 "Session Information Functions": pg_blocking_pids().
_POSTGRESQL = (
    """
    SELECT wait_event_type || ': ' || wait_event FROM pg_stat_activity WHERE pid = :pid
    """,
    """
    SELECT pid, application_name AS application, host(client_addr) AS client, state,
        xact_start::text AS since
    FROM pg_stat_activity WHERE pid = ANY(pg_blocking_pids(:pid))
    """,
)
# MariaDB manual, "Information Schema INNODB_TRX Table", which needs the right PROCESS. The server
# does not say who holds a table's metadata lock: each other open transaction is one that may.
_MYSQL = (
    "SELECT state FROM information_schema.processlist WHERE id = :pid",
    """
    SELECT t.trx_mysql_thread_id AS pid, p.user AS application, p.host AS client,
        p.command AS state, CAST(t.trx_started AS CHAR) AS since
    FROM information_schema.innodb_trx t
    JOIN information_schema.processlist w ON w.id = :pid AND w.state LIKE '%lock%'
    LEFT JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id
    WHERE t.trx_mysql_thread_id <> :pid
    """,
)
_QUERIES = {"postgresql": _POSTGRESQL, "mysql": _MYSQL, "mariadb": _MYSQL}


@contextmanager
def beating(
    observer: Observer, databases: Sequence[Database], *, period: float, connect_timeout: float
) -> Iterator[None]:
    """Log `migration.running` for each revision that runs longer than the period.

    Args:
        observer: knows which revision runs, since when, on which connection.
        databases: where to ask who blocks it, on a connection of our own.
        period: seconds between two lines; 0 logs none.
        connect_timeout: seconds that one attempt to connect may take.
    """
    if not period:
        yield
        return
    over = threading.Event()
    by_name = {database.name: database for database in databases}

    def beat() -> None:
        while not over.wait(period):
            step, since = observer.running, observer.running_since
            if step is None or monotonic() - since < period:
                continue
            database, session = by_name.get(step.database), identify_session(observer.connection)
            found: dict[str, Any] = {}
            if database is not None and session is not None:
                found = explain_wait(database, session, connect_timeout)
            elapsed = round(monotonic() - since, 1)
            logger.info("migration.running", **step.describe(), elapsed=elapsed, **found)

    thread = threading.Thread(target=beat, name="flask-migrate-heartbeat", daemon=True)
    thread.start()
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
    found: dict[str, Any] = {"waits_for": None, "blocked_by": []}
    queries = _QUERIES.get(database.url.get_backend_name())
    # Whatever keeps us from asking, missing rights among it, must not disturb the migration.
    with suppress(Exception):
        if queries is None:
            return {}
        engine = database.engine(connect_timeout=connect_timeout)
        with engine.connect() as connection:
            found["waits_for"] = connection.execute(text(queries[0]), {"pid": session}).scalar()
            rows = connection.execute(text(queries[1]), {"pid": session}).mappings()
            found["blocked_by"] = [{k: v for k, v in row.items() if v is not None} for row in rows]
    return found


def identify_session(connection: Connection | None) -> int | None:
    """Give the server's number for a connection, without asking the server."""
    if connection is None:
        return None
    driver: Any = connection.connection.dbapi_connection
    if hasattr(driver, "thread_id"):  # PyMySQL, mysqlclient
        return int(driver.thread_id())
    if hasattr(driver, "info"):  # psycopg, psycopg2
        return int(driver.info.backend_pid)
    return None
