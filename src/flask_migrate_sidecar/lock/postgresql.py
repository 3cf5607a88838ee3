"""The advisory lock of PostgreSQL, which the server frees when the connection ends."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC
from typing import Final

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from flask_migrate_sidecar.database.keepalive import COUNT, IDLE, INTERVAL, USER_TIMEOUT

from .base import Holder, LockTarget, lock_number
from .connection import ConnectedLock, identify_server

_KEEP_OPEN: Final = "SET LOCAL idle_in_transaction_session_timeout = 0"
# It ends a transaction however busy it is (PostgreSQL 17, manual, section 20.11.1).
_NO_LIMIT: Final = "SET LOCAL transaction_timeout = 0"
_NO_LIMIT_SINCE: Final = (17,)
# By them the server notices a holder whose node is gone, and frees the lock: 30 s after its last
# word (manual, section 20.3.1 "TCP Settings"). As the client's own in `database.keepalive`.
_KEEPALIVE: Final = (
    f"SET LOCAL tcp_keepalives_idle = {IDLE}; SET LOCAL tcp_keepalives_interval = {INTERVAL};"
    f" SET LOCAL tcp_keepalives_count = {COUNT}"
)
_USER_TIMEOUT: Final = f"SET LOCAL tcp_user_timeout = {USER_TIMEOUT}"
_USER_TIMEOUT_SINCE: Final = (12,)
_HOLDER: Final = text(
    """
    SELECT held.pid, session.application_name, host(session.client_addr), session.xact_start
    FROM pg_catalog.pg_locks AS held
    JOIN pg_catalog.pg_database AS d ON d.oid = held.database AND d.datname = current_database()
    LEFT JOIN pg_catalog.pg_stat_activity AS session ON session.pid = held.pid
    WHERE held.locktype = 'advisory' AND held.granted AND held.objsubid = 1
    AND (held.classid = CAST(:high AS oid) AND held.objid = CAST(:low AS oid)
        OR held.mode = 'ExclusiveLock' AND held.classid = CAST(:common_high AS oid)
        AND held.objid = CAST(:common_low AS oid))
    """
)


class PostgresLock(ConnectedLock):
    """A transaction-level advisory lock, held by keeping its transaction open.

    A session-level lock would be re-entrant through a pooler in transaction mode: two clients on
    one backend would both get it. A blocking call would hold a snapshot, for which `CREATE INDEX
    CONCURRENTLY` waits, while the migration that runs it holds the lock. For the same reason
    nothing that takes a snapshot runs in the transaction once the lock is had: of 232 index
    builds beside a `SELECT 1` in a loop five waited forever, of 22,434 beside `SET LOCAL` none.

    PostgreSQL manual, sections 9.28.10 and 13.3.5.
    """

    kind = "advisory"

    def __init__(self, target: LockTarget, *, interval: float, connect_timeout: float) -> None:
        """Describe the lock; the database is not part of the key, for the server adds it."""
        super().__init__(
            target, interval=interval, connect_timeout=connect_timeout, autocommit=True
        )
        self._key = lock_number(target.schema, target.version_table)
        # Of one tenant, or of one application among several: it excludes who migrates all of them,
        # and not each other (manual, section 9.28.10, shared advisory locks).
        self._common = lock_number(None, target.version_table) if target.schema else None

    def holder(self) -> Holder | None:
        """Read the server's own lists; the columns of another role's session may be empty."""
        row = self._with_connection(
            lambda connection: connection.execute(_HOLDER, self._halves()).first()
        )
        if row is None:
            return None
        pid, application, client, since = row
        return Holder(pid, application or None, client, since and since.astimezone(UTC).isoformat())

    def check(self) -> None:
        """Speak in the lock's transaction, so that neither a pooler nor a router forgets it."""
        if self._connection is None:
            raise self.lost("its connection ended")
        try:
            self._with_connection(lambda connection: connection.exec_driver_sql(_KEEP_OPEN))
        except SQLAlchemyError as error:
            raise self.lost("its connection ended") from error

    def release(self) -> None:
        """End the transaction: a pooler can then give its connection to another client."""
        if self._connection is not None:
            with suppress(Exception):
                self._connection.exec_driver_sql("ROLLBACK")
        self._close()

    def _try(self, connection: Connection) -> bool:
        connection.exec_driver_sql("BEGIN ISOLATION LEVEL READ COMMITTED")
        connection.exec_driver_sql(_KEEP_OPEN)
        if (connection.dialect.server_version_info or ()) >= _NO_LIMIT_SINCE:
            connection.exec_driver_sql(_NO_LIMIT)
        if self._take(connection):
            connection.exec_driver_sql(_KEEPALIVE)
            if (connection.dialect.server_version_info or ()) >= _USER_TIMEOUT_SINCE:
                connection.exec_driver_sql(_USER_TIMEOUT)
            return True
        connection.exec_driver_sql("ROLLBACK")
        return False

    def _take(self, connection: Connection) -> bool:
        common = f"pg_try_advisory_xact_lock_shared(CAST('{self._common}' AS bigint))"
        if self._common is not None and not connection.exec_driver_sql(f"SELECT {common}").scalar():
            return False
        query = f"SELECT pg_try_advisory_xact_lock(CAST('{self._key}' AS bigint))"
        return bool(connection.exec_driver_sql(query).scalar())

    def _identify(self, connection: Connection) -> tuple[str, ...]:
        return (*identify_server(connection), str(self._key))

    def _halves(self) -> dict[str, str]:
        """Split the keys as `pg_locks` shows them (manual, section 54.12)."""
        high, low = _split(self._key)
        common_high, common_low = _split(self._key if self._common is None else self._common)
        return {"high": high, "low": low, "common_high": common_high, "common_low": common_low}


def _split(key: int) -> tuple[str, str]:
    unsigned = key % 2**64
    return str(unsigned >> 32), str(unsigned % 2**32)
