"""What differs from database to database: one object each, in a module of its name.

The base class is for databases of which nothing more is known than what SQLAlchemy knows.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import import_module
from typing import Any, ClassVar, Final, NamedTuple

from sqlalchemy import URL, Connection, func, select

# The module of each dialect's name.
_MODULES: Final = {
    "postgresql": "postgresql",
    "mysql": "mysql",
    "mariadb": "mysql",
    "sqlite": "sqlite",
}


class LockLimit(NamedTuple):
    """The statements that limit how long the statements of a session wait for a lock.

    Args:
        set: limits them, in a transaction that has just begun.
        unset: takes the limit away, where the end of the transaction does not.
    """

    set: str
    unset: str | None = None


class Dialect:
    """A database of no kind in particular."""

    # Whether DDL can be rolled back if `env.py` says so, for each statement shows whether it can.
    can_transact_ddl: ClassVar[bool] = False
    # Whether an index can be there that was not built to its end.
    has_invalid_indexes: ClassVar[bool] = False
    lock_limit: ClassVar[LockLimit | None] = None
    # Where the driver commits each statement by itself.
    lock_limit_of_session: ClassVar[LockLimit | None] = None

    def arguments(self, url: URL, seconds: float, answer: float | None = None) -> dict[str, Any]:
        """Give the driver's own arguments for time limits, and for our name at the server.

        They are none where the driver is not known.

        Args:
            url: names the driver, and how many hosts share the time.
            seconds: for connecting.
            answer: for the server's answers, None for no limit.
        """
        return {"timeout": whole(seconds)} if url.get_driver_name() == "pyodbc" else {}

    def probe_options(self, url: URL) -> dict[str, Any]:
        """Give the options of an engine that looks at a server, in no transaction if it can."""
        return {}

    def version(self, connection: Connection) -> str:
        """Name the server and its version."""
        version = connection.dialect.server_version_info or ()
        return " ".join((connection.dialect.name, ".".join(map(str, version)))).strip()

    def require_writes(self, connection: Connection) -> None:
        """Make sure that the server takes writes.

        Raises:
            UnusableError: it only reads.
        """

    def identify(self, connection: Connection) -> tuple[str, ...]:
        """Tell which database on which server this is, the same in every process."""
        url = connection.engine.url
        return (url.get_backend_name(), str(url.host), str(url.port), str(url.database))

    def find_version_tables(self, connection: Connection) -> Sequence[str]:
        """Name the tables that have the form of Alembic's version table, whoever made them."""
        return ()

    def watch_client(self, connection: Connection) -> None:
        """Let the server notice that a client is gone, where a session can ask for that.

        Args:
            connection: the session; its transaction goes on.
        """

    def find_session(self, connection: Connection, told: int | None) -> int | None:
        """Give the server's own number for a session, whatever stands between.

        Args:
            connection: the session.
            told: the number that the driver was told.
        """
        return told

    def is_at_work(self, connection: Connection, session: int) -> bool:
        """Tell whether a session still does what it was asked, which may be a COMMIT.

        Args:
            connection: another one.
            session: the server's number for it.
        """
        return False

    def is_autocommitting(self, connection: Connection) -> bool:
        """Tell whether what has just run on a connection is final already."""
        return getattr(connection.connection.dbapi_connection, "autocommit", False) is True

    def is_idle(self, connection: Connection) -> bool | None:
        """Tell whether a transaction that was open on a connection is over; None: not known."""
        return self.is_autocommitting(connection)

    def find_schema(self, connection: Connection) -> str | None:
        """Tell in which schema a session makes its tables, None where there are no schemas."""
        return None

    def read_clock(self, connection: Connection) -> int:
        """Read the database's clock as milliseconds since 1970."""
        return to_milliseconds(connection.execute(select(func.current_timestamp())).scalar_one())

    def find_holders(
        self, connection: Connection, schema: str | None, table: str
    ) -> Sequence[Mapping[str, Any]]:
        """Name the sessions that hold a table so that it cannot be read, where the server tells."""
        return ()

    def find_invalid_indexes(self, connection: Connection) -> Sequence[str]:
        """Name the indexes that were not built to their end, and are used by no query."""
        return ()

    def identify_session(self, driver: Any) -> int | None:
        """Give the server's number for a driver's connection, without asking the server.

        Called on the connection's own thread: mysqlclient refuses another one while it waits.
        """
        return None

    def explain_wait(self, connection: Connection, session: int) -> dict[str, Any]:
        """Find what a session waits for, and the sessions that it waits for.

        Args:
            connection: another connection to the same server.
            session: what `identify_session` gave.
        """
        return {}

    def cancel(self, connection: Connection, session: int | None) -> None:
        """End the statement that runs on a connection of another thread.

        Args:
            connection: the other thread's connection.
            session: what `identify_session` gave, on that thread.
        """
        driver: Any = connection.connection.dbapi_connection
        cancel = getattr(driver, "cancel", None)
        if cancel is not None:
            cancel()


@functools.cache
def find_dialect(name: str) -> Dialect:
    """Give what is known of a database by the name of its SQLAlchemy dialect."""
    module = _MODULES.get(name)
    if module is None:
        return Dialect()
    known: Dialect = import_module(f".{module}", __package__).DIALECT
    return known


def explain_by(
    connection: Connection, session: int, waits_for: str, blocked_by: str
) -> dict[str, Any]:
    """Ask two queries: what a session waits for, and who is in its way."""
    found = {"waits_for": connection.exec_driver_sql(waits_for % session).scalar()}
    rows: Sequence[Any] = connection.exec_driver_sql(blocked_by % session).mappings().all()
    return {**found, "blocked_by": [without_nothing(row) for row in rows]}


def without_nothing(row: Mapping[Any, Any]) -> dict[Any, Any]:
    """Leave out the fields of a row that have no value."""
    return {key: value for key, value in row.items() if value is not None}


def to_milliseconds(moment: int | datetime) -> int:
    """Count from 1970; a time without a zone is one in UTC."""
    if not isinstance(moment, datetime):
        return int(moment)
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1000)


def whole(seconds: float) -> int:
    """Round up to whole seconds, one at least: some drivers take no fraction."""
    return max(1, math.ceil(seconds))
