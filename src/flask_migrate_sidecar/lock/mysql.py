"""The named lock of MariaDB and MySQL, which the server frees when the connection ends."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from flask_migrate_sidecar.errors import UnavailableError

from .base import Holder, LockTarget, lock_name
from .connection import ConnectedLock, identify_server

# Seconds; MariaDB and MySQL close a connection that is idle for longer.
_WAIT_TIMEOUT: Final = 28_800


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
            with suppress(Exception):
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
        return (*identify_server(connection), self._name(connection))

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
