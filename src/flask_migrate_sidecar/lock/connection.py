"""The connection of a lock's own: how it is opened, named, kept alive and told apart."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from flask_migrate_sidecar.database.dialect import find_dialect
from flask_migrate_sidecar.process.identity import application_name

from .base import Lock, LockTarget

T = TypeVar("T")

# Seconds; no statement of a lock waits on the server.
_MYSQL_TIMEOUTS: Final = {"read_timeout": 20, "write_timeout": 20}


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
        except Exception:
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
    arguments = driver_arguments(target.database.url.get_driver_name())
    engine = target.database.engine(
        connect_timeout=connect_timeout, defaults=arguments, ours=_names(arguments)
    )
    return engine.execution_options(isolation_level="AUTOCOMMIT") if autocommit else engine


def driver_arguments(driver: str) -> Mapping[str, Any]:
    """Give what a driver understands of: our name, time limits, plain statements.

    psycopg 3 prepares a statement on the server at its fifth use, which a pooler in transaction
    mode does not survive (psycopg manual, "Prepared statements").
    """
    arguments: dict[str, dict[str, Any]] = {
        "psycopg": {
            "application_name": application_name(),
            "prepare_threshold": None,
        },
        "psycopg2": {"application_name": application_name()},
        "pymysql": {**_MYSQL_TIMEOUTS, "program_name": application_name()},
        "mysqldb": {**_MYSQL_TIMEOUTS},
    }
    return arguments.get(driver, {})


def _names(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Pick what must be ours even if the application's URL says otherwise."""
    ours = ("application_name", "program_name", "prepare_threshold")
    return {name: arguments[name] for name in ours if name in arguments}


def identify_server(connection: Connection) -> tuple[str, ...]:
    """Tell which database on which server this connection reached, the same in every process."""
    return find_dialect(connection.dialect.name).identify(connection)
