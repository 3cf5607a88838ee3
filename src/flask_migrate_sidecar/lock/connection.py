"""The connection of a lock's own: how it is opened, named, kept alive and told apart."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError

from flask_migrate_sidecar.databases import identity

from .base import Lock, LockTarget, application_name

T = TypeVar("T")

# An idle connection must survive address translation, and a dead path must show: libpq's options,
# in seconds but for the last, which is in milliseconds (PostgreSQL manual, section 34.1.2).
_KEEPALIVE: Final = {
    "keepalives": 1,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
# Seconds; no statement of a lock waits on the server.
_MYSQL_TIMEOUTS: Final = {"read_timeout": 20, "write_timeout": 20}

# insufficient_privilege and, for a role that may use no schema, invalid_schema_name.
_REFUSED_STATES: Final = frozenset({"42501", "3F000"})
# Access denied to: database, user, table, column, a privileged statement, a routine.
_REFUSED_NUMBERS: Final = frozenset({1044, 1045, 1142, 1143, 1227, 1370})
_REFUSED_TEXTS: Final = ("readonly database", "unable to open database file")
# read_only_sql_transaction; --read-only and read-only modes of MariaDB and MySQL.
_READ_ONLY_STATES: Final = frozenset({"25006"})
_READ_ONLY_NUMBERS: Final = frozenset({1290, 1792, 1836})


class ConnectedLock(Lock):
    """A lock that lives on a connection, opened at the first try and again after an error."""

    def __init__(
        self,
        target: LockTarget,
        *,
        interval: float,
        connect_timeout: float,
        autocommit: bool,
    ) -> None:
        """Describe the lock; nothing is opened.

        Args:
            target: what to lock.
            interval: seconds between two checks.
            connect_timeout: seconds that one attempt to connect may take.
            autocommit: leave the transactions to the lock's own statements.
        """
        super().__init__(target, interval=interval)
        self._engine = lock_engine(target, connect_timeout, autocommit=autocommit)
        self._connection: Connection | None = None

    def try_acquire(self) -> bool:
        """Try once; after an error the next try has a new connection."""
        return self._with_connection(self._try)

    def identity(self) -> tuple[str, ...]:
        """Ask the server which it is: URLs of one database can differ in every part."""
        return self._with_connection(self._identify)

    @abstractmethod
    def _try(self, connection: Connection) -> bool:
        """Try once on an open connection."""

    @abstractmethod
    def _identify(self, connection: Connection) -> tuple[str, ...]:
        """Name server, database and lock."""

    def _with_connection(self, use: Callable[[Connection], T]) -> T:
        if self._connection is None:
            self._connection = self._engine.connect()
        try:
            return use(self._connection)
        except SQLAlchemyError:
            self._close()
            raise

    def _close(self) -> None:
        """Close without the usual rollback, which on a dead connection is one more error."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(SQLAlchemyError):
                connection.invalidate()
                connection.close()


def lock_engine(target: LockTarget, connect_timeout: float, *, autocommit: bool) -> Engine:
    """Make an engine whose connections carry the holder's name and outlive idle hours."""
    engine = target.database.engine(connect_timeout=connect_timeout)
    arguments = driver_arguments(engine.dialect.driver)

    def amend(
        _dialect: Dialect, _record: object, _args: list[Any], parameters: dict[str, Any]
    ) -> None:
        parameters.update({**arguments, **parameters, **_names(arguments)})

    event.listen(engine, "do_connect", amend)
    return engine.execution_options(isolation_level="AUTOCOMMIT") if autocommit else engine


def driver_arguments(driver: str) -> Mapping[str, Any]:
    """Give what a driver understands of: our name, keepalive, time limits, plain statements.

    psycopg 3 prepares a statement on the server at its fifth use, which a pooler in transaction
    mode does not survive (psycopg manual, "Prepared statements").
    """
    arguments: dict[str, dict[str, Any]] = {
        "psycopg": {
            **_KEEPALIVE,
            "application_name": application_name(),
            "prepare_threshold": None,
        },
        "psycopg2": {**_KEEPALIVE, "application_name": application_name()},
        "pymysql": {**_MYSQL_TIMEOUTS, "program_name": application_name()},
        "mysqldb": {**_MYSQL_TIMEOUTS},
    }
    return arguments.get(driver, {})


def _names(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Pick what must be ours even if the application's URL says otherwise."""
    ours = ("application_name", "program_name", "prepare_threshold")
    return {name: arguments[name] for name in ours if name in arguments}


def server_identity(connection: Connection) -> tuple[str, ...]:
    """Tell which database on which server this connection reached, the same in every process."""
    backend = connection.dialect.name
    if backend == "postgresql":
        # To the microsecond: no two servers share it, be they copies of each other or not.
        query = "SELECT current_database(), EXTRACT(EPOCH FROM pg_postmaster_start_time())"
        return (backend, *map(str, connection.exec_driver_sql(query).one()))
    if backend in ("mysql", "mariadb"):
        return ("mysql", *_mysql_identity(connection))
    return identity(connection.engine.url)


def _mysql_identity(connection: Connection) -> list[str]:
    """Join what servers have of it: `server_uid` is MariaDB's, `server_uuid` is MySQL's."""
    names = "'server_uid', 'server_uuid', 'hostname', 'port', 'datadir'"
    rows = connection.exec_driver_sql(
        f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({names})"
    ).all()
    database = connection.exec_driver_sql("SELECT DATABASE()").scalar()
    return [str(database), *sorted(f"{name}={value}" for name, value in rows)]


def is_refused(error: DBAPIError) -> bool:
    """Tell whether the server understood and said no."""
    return (
        _state(error) in _REFUSED_STATES
        or _number(error) in _REFUSED_NUMBERS
        or any(text in str(error.orig) for text in _REFUSED_TEXTS)
    )


def is_unavailable(error: DBAPIError) -> bool:
    """Tell whether a later try may succeed: connection lost, deadlock, read-only for now."""
    if _state(error) in _READ_ONLY_STATES or _number(error) in _READ_ONLY_NUMBERS:
        return True
    transient = isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated
    return transient and not is_refused(error)


def _state(error: DBAPIError) -> str | None:
    """Give the SQLSTATE: `sqlstate` in psycopg 3, `pgcode` in psycopg2."""
    state = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
    return str(state) if state else None


def _number(error: DBAPIError) -> int | None:
    """Give the error number of MariaDB and MySQL, the first argument in both drivers."""
    arguments = error.orig.args if error.orig is not None else ()
    return arguments[0] if arguments and isinstance(arguments[0], int) else None
