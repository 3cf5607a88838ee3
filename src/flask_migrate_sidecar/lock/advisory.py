"""Advisory locks, which the server frees by itself when the connection that holds them ends."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC
from typing import Final

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from flask_migrate_sidecar.errors import UnavailableError

from .base import Holder, LockTarget, lock_name, lock_number
from .connection import ConnectedLock, server_identity

_KEEP_OPEN: Final = "SET LOCAL idle_in_transaction_session_timeout = 0"
# It ends a transaction however busy it is (PostgreSQL 17, manual, section 20.11.1).
_NO_LIMIT: Final = "SET LOCAL transaction_timeout = 0"
_NO_LIMIT_SINCE: Final = (17,)
# Seconds; MariaDB and MySQL close a connection that is idle for longer.
_WAIT_TIMEOUT: Final = 28_800

_POSTGRES_HOLDER: Final = text(
    """
    SELECT held.pid, session.application_name, host(session.client_addr), session.xact_start
    FROM pg_catalog.pg_locks AS held
    JOIN pg_catalog.pg_database AS d ON d.oid = held.database AND d.datname = current_database()
    LEFT JOIN pg_catalog.pg_stat_activity AS session ON session.pid = held.pid
    WHERE held.locktype = 'advisory' AND held.granted AND held.objsubid = 1
    AND held.classid = CAST(:high AS oid) AND held.objid = CAST(:low AS oid)
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

    def holder(self) -> Holder | None:
        """Read the server's own lists; the columns of another role's session may be empty."""
        row = self._with_connection(
            lambda connection: connection.execute(_POSTGRES_HOLDER, self._halves()).first()
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
            with suppress(SQLAlchemyError):
                self._connection.exec_driver_sql("ROLLBACK")
        self._close()

    def _try(self, connection: Connection) -> bool:
        connection.exec_driver_sql("BEGIN ISOLATION LEVEL READ COMMITTED")
        connection.exec_driver_sql(_KEEP_OPEN)
        if (connection.dialect.server_version_info or ()) >= _NO_LIMIT_SINCE:
            connection.exec_driver_sql(_NO_LIMIT)
        query = f"SELECT pg_try_advisory_xact_lock(CAST('{self._key}' AS bigint))"
        if connection.exec_driver_sql(query).scalar():
            return True
        connection.exec_driver_sql("ROLLBACK")
        return False

    def _identify(self, connection: Connection) -> tuple[str, ...]:
        return (*server_identity(connection), str(self._key))

    def _halves(self) -> dict[str, str]:
        """Split the key as `pg_locks` shows it (manual, section 54.12)."""
        unsigned = self._key % 2**64
        return {"high": str(unsigned >> 32), "low": str(unsigned % 2**32)}


class MysqlLock(ConnectedLock):
    """A named lock of MariaDB or MySQL; names are the server's, so the database is part of it.

    MariaDB knowledge base, GET_LOCK; MySQL manual, section 14.14.
    """

    kind = "advisory"

    def __init__(self, target: LockTarget, *, interval: float, connect_timeout: float) -> None:
        """Describe the lock; its name needs the server's word for the database."""
        super().__init__(
            target, interval=interval, connect_timeout=connect_timeout, autocommit=True
        )

    def holder(self) -> Holder | None:
        """Look the connection up; without the PROCESS right only our own user's are seen."""
        return self._with_connection(self._find_holder)

    def check(self) -> None:
        """Ask whether the lock is still this connection's, which also keeps it from idling."""
        try:
            ours = self._with_connection(self._is_ours)
        except SQLAlchemyError as error:
            raise self.lost("its connection ended") from error
        if not ours:
            raise self.lost("the server gave it to another connection")

    def release(self) -> None:
        """Free the name, then close."""
        if self._connection is not None:
            with suppress(SQLAlchemyError):
                self._ask(self._connection, "RELEASE_LOCK(:name)")
        self._close()

    def _try(self, connection: Connection) -> bool:
        connection.exec_driver_sql(f"SET SESSION wait_timeout = {_WAIT_TIMEOUT}")
        answer = self._ask(connection, "GET_LOCK(:name, 0)")
        if answer is None:
            name = self.target.database.name
            raise UnavailableError(
                f"GET_LOCK answered NULL on database {name}: the server could not take the lock",
                database=name,
            )
        return answer == 1

    def _identify(self, connection: Connection) -> tuple[str, ...]:
        return (*server_identity(connection), self._name(connection))

    def _name(self, connection: Connection) -> str:
        database = connection.exec_driver_sql("SELECT DATABASE()").scalar()
        return lock_name(str(database), self.target.schema, self.target.version_table)

    def _ask(self, connection: Connection, function: str) -> int | None:
        answer: int | None = connection.execute(
            text(f"SELECT {function}"), {"name": self._name(connection)}
        ).scalar()
        return answer

    def _is_ours(self, connection: Connection) -> bool:
        return self._ask(connection, "IS_USED_LOCK(:name) = CONNECTION_ID()") == 1

    def _find_holder(self, connection: Connection) -> Holder | None:
        pid = self._ask(connection, "IS_USED_LOCK(:name)")
        if pid is None:
            return None
        client = connection.execute(
            text("SELECT host FROM information_schema.processlist WHERE id = :id"), {"id": pid}
        ).scalar()
        return Holder(pid, _program_name(connection, pid), client)


def _program_name(connection: Connection, pid: int) -> str | None:
    """Read the holder's name, which needs the performance schema (off by default in MariaDB)."""
    query = (
        "SELECT attr_value FROM performance_schema.session_account_connect_attrs"
        " WHERE processlist_id = :id AND attr_name = 'program_name'"
    )
    try:
        name: str | None = connection.execute(text(query), {"id": pid}).scalar()
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        return None
    return name
