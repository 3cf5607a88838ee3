"""What is particular to PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from sqlalchemy import URL, Connection, column, func, select, text
from sqlalchemy.exc import DBAPIError

from flask_migrate_sidecar.process.child import run_in_child
from flask_migrate_sidecar.process.identity import application_name

from .causes import STANDBY
from .dialect import Dialect, LockLimit, explain_by, to_milliseconds, whole, without_nothing
from .errors import UnusableError
from .keepalive import COUNT, IDLE, INTERVAL, USER_TIMEOUT
from .url import hosts_and_ports

_LIBPQ: Final = ("psycopg", "psycopg2", "psycopg2cffi")
# libpq and psycopg wait for 2 seconds at least (PostgreSQL manual, 34.1.2, connect_timeout).
_LIBPQ_LEAST: Final = 2
_READ_ONLY: Final = "turn off default_transaction_read_only for this server, database or role"
# Manual, 9.28 (pg_is_in_recovery) and 20.11.1 (default_transaction_read_only, which operators and
# providers set for a server, a database or a role).
_WRITES: Final = (
    "SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('transaction_read_only')"
)
# To the microsecond: no two servers share it, be they copies of each other or not.
_IDENTITY: Final = "SELECT current_database(), EXTRACT(EPOCH FROM pg_postmaster_start_time())"
# Not now(), which is when the transaction began.
_CLOCK: Final = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS bigint)"
# Manual, 9.27.1 "Session Information Functions": pg_blocking_pids().
_WAITS_FOR: Final = (
    "SELECT wait_event_type || ': ' || wait_event FROM pg_stat_activity WHERE pid = %d"
)
_BLOCKED_BY: Final = """
    SELECT pid, application_name AS application, host(client_addr) AS client, state,
        xact_start::text AS since
    FROM pg_stat_activity WHERE pid = ANY(pg_blocking_pids(%d))
"""
# Only this mode keeps others from reading (manual, 13.3.1).
_HOLDERS: Final = text("""
    SELECT a.pid, a.application_name AS application, host(a.client_addr) AS client, a.state,
        a.xact_start::text AS since
    FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE l.relation = to_regclass(:name) AND l.granted AND l.mode = 'AccessExclusiveLock'
""")
_CANCEL_SECONDS: Final = 2.0
# Of what this user may see.
_VERSION_TABLES: Final = text("""
    SELECT CASE WHEN table_schema = current_schema() THEN table_name
        ELSE table_schema || '.' || table_name END
    FROM information_schema.columns GROUP BY table_schema, table_name
    HAVING count(*) = 1 AND max(column_name) = 'version_num' ORDER BY 1
""")
_INVALID_INDEXES: Final = """
    SELECT CAST(indexrelid::regclass AS text) FROM pg_index WHERE NOT indisvalid
    AND indexrelid NOT IN (SELECT index_relid FROM pg_stat_progress_create_index)
    ORDER BY 1
"""
_WATCH_CLIENT: Final = text("""
    SELECT set_config(name, value, false) FROM pg_catalog.pg_settings JOIN (VALUES
        ('tcp_keepalives_idle', :idle), ('tcp_keepalives_interval', :interval),
        ('tcp_keepalives_count', :count), ('tcp_user_timeout', :user_timeout),
        ('client_connection_check_interval', '5000')
    ) AS ours (name, value) USING (name) WHERE source = 'default'
""").bindparams(
    idle=str(IDLE), interval=str(INTERVAL), count=str(COUNT), user_timeout=str(USER_TIMEOUT)
)


class PostgreSQL(Dialect):
    """PostgreSQL, whichever driver and pooler."""

    has_invalid_indexes = True
    # Sooner than the server looks for deadlocks (deadlock_timeout, 1 s).
    lock_limit = LockLimit("SET LOCAL lock_timeout = '200ms'")
    lock_limit_of_session = LockLimit("SET lock_timeout = '200ms'", "RESET lock_timeout")

    def arguments(self, url: URL, seconds: float, answer: float | None = None) -> dict[str, Any]:
        """Share the time between the hosts: libpq counts it anew for each (manual, 34.1.2)."""
        if url.get_driver_name() in ("pg8000", "asyncpg"):
            return {"timeout": whole(seconds)}
        if url.get_driver_name() not in _LIBPQ:
            return {}
        limit = {
            "connect_timeout": max(_LIBPQ_LEAST, whole(seconds / len(hosts_and_ports(url)))),
            # Where neither the URL nor PGAPPNAME says another one (manual, 34.1.2).
            "fallback_application_name": application_name(),
        }
        if answer is None:
            return limit
        silence = whole(answer)
        return {
            **limit,
            "tcp_user_timeout": silence * 1000,
            "keepalives_idle": silence,
            "keepalives_interval": 1,
            "keepalives_count": 3,
        }

    def probe_options(self, url: URL) -> dict[str, Any]:
        """Leave out SQLAlchemy's look for a type, in a transaction, upon each connection."""
        hstore = {"use_native_hstore": False} if url.get_driver_name() in _LIBPQ else {}
        return {"isolation_level": "AUTOCOMMIT", **hstore}

    def version(self, connection: Connection) -> str:
        """Leave out what built the server and where it runs."""
        text = str(connection.exec_driver_sql("SELECT pg_catalog.version()").scalar())
        return " ".join(text.split()[:2])

    def require_writes(self, connection: Connection) -> None:
        """Want a primary: it may still be promoted, and a mode of maintenance ends."""
        recovery, read_only = connection.exec_driver_sql(_WRITES).one()
        if recovery:
            raise UnusableError(STANDBY, "the server is a standby, it only reads")
        if read_only == "on":
            raise UnusableError(STANDBY, "default_transaction_read_only is on", hint=_READ_ONLY)

    def identify(self, connection: Connection) -> tuple[str, ...]:
        """Ask the server: URLs of one database can differ in every part."""
        return ("postgresql", *map(str, connection.exec_driver_sql(_IDENTITY).one()))

    def find_version_tables(self, connection: Connection) -> Sequence[str]:
        """Look in every schema; the usual one is not named."""
        return connection.execute(_VERSION_TABLES).scalars().all()

    def watch_client(self, connection: Connection) -> None:
        """Set what nobody has set, in the session and not in a transaction of it.

        Manual, section 20.3.1 "TCP Settings", "Connection Settings": what a server does not
        have is left out, `client_connection_check_interval` before PostgreSQL 14.
        """
        was_open = connection.in_transaction()
        try:
            # A server that only speaks the protocol may refuse; that must not cost the transaction.
            with _aside(connection):
                connection.execute(_WATCH_CLIENT)
        except DBAPIError as error:
            if error.connection_invalidated:
                raise
        if not was_open:
            connection.commit()

    def find_session(self, connection: Connection, told: int | None) -> int | None:
        """Ask within the transaction: a pooler tells the driver a number of its own."""
        if not connection.in_transaction():
            return told
        try:
            with _aside(connection):
                asked = "SELECT pg_catalog.pg_backend_pid()"
                return int(connection.exec_driver_sql(asked).scalar_one())
        except DBAPIError as error:
            if error.connection_invalidated:
                raise
            return told

    def is_at_work(self, connection: Connection, session: int) -> bool:
        """Look among the sessions; each user sees what their own do."""
        found = select(func.count()).select_from(text("pg_catalog.pg_stat_activity"))
        works = func.coalesce(column("state"), "active") == "active"
        return bool(connection.scalar(found.where(column("pid") == session, works)))

    def is_idle(self, connection: Connection) -> bool | None:
        """Ask psycopg or psycopg2, which know it from libpq (`PQtransactionStatus`)."""
        status = getattr(connection.connection.dbapi_connection, "info", None)
        found = getattr(status, "transaction_status", None)
        return None if found is None else bool(found == 0)

    def find_schema(self, connection: Connection) -> str | None:
        """Ask for the first schema of the session's search path."""
        schema: str | None = connection.exec_driver_sql("SELECT current_schema()").scalar()
        return schema

    def read_clock(self, connection: Connection) -> int:
        """Read the time of now."""
        return to_milliseconds(connection.exec_driver_sql(_CLOCK).scalar_one())

    def cancel(self, connection: Connection, session: int | None) -> None:
        """Have the driver ask, so that no other thread has to wait while the link stalls.

        Without libpq 17 psycopg and psycopg2 keep Python's own lock until the server has answered:
        then a child process asks (psycopg manual, `Connection.cancel_safe`).
        """
        driver: Any = connection.connection.dbapi_connection
        if can_cancel_safely(driver):
            driver.cancel_safe(timeout=_CANCEL_SECONDS)
        elif hasattr(driver, "cancel"):
            run_in_child(driver.cancel, _CANCEL_SECONDS)

    def find_holders(
        self, connection: Connection, schema: str | None, table: str
    ) -> Sequence[Mapping[str, Any]]:
        """Ask for the locks on the table."""
        quote = connection.dialect.identifier_preparer.quote
        name = ".".join(quote(part) for part in (schema, table) if part)
        rows: Sequence[Any] = connection.execute(_HOLDERS, {"name": name}).mappings().all()
        return [without_nothing(row) for row in rows]

    def find_invalid_indexes(self, connection: Connection) -> Sequence[str]:
        """Ask for those that no session builds now (manual, CREATE INDEX, "Building Indexes")."""
        return connection.exec_driver_sql(_INVALID_INDEXES).scalars().all()

    def identify_session(self, driver: Any) -> int | None:
        """Give the backend's process id, which libpq knows from the login."""
        return int(driver.info.backend_pid) if hasattr(driver, "info") else None

    def explain_wait(self, connection: Connection, session: int) -> dict[str, Any]:
        """Ask for the wait event, and for who holds what is waited for."""
        return explain_by(connection, session, _WAITS_FOR, _BLOCKED_BY)


def _aside(connection: Connection) -> AbstractContextManager[object]:
    """Set a savepoint, where there is a transaction to save."""
    is_autocommitting = getattr(connection.connection.dbapi_connection, "autocommit", False)
    return nullcontext() if is_autocommitting else connection.begin_nested()


def can_cancel_safely(driver: Any) -> bool:
    """Tell whether the driver is a psycopg that can cancel without stopping other threads."""
    if not hasattr(driver, "cancel_safe"):
        return False
    try:
        from psycopg import capabilities
    except ImportError:
        return False
    return bool(capabilities.has_cancel_safe())


DIALECT: Final = PostgreSQL()
