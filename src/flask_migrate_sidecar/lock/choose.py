"""Which lock fits which database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy.exc import DBAPIError

from flask_migrate_sidecar.database.connect import Database
from flask_migrate_sidecar.database.errors import diagnose, make_error
from flask_migrate_sidecar.database.url import is_memory
from flask_migrate_sidecar.errors import ConfigurationError

from .base import Lock, LockTarget
from .connection import lock_engine
from .lease import LEASE_SECONDS, LeaseLock
from .mysql import MysqlLock
from .postgresql import PostgresLock
from .sqlite import FileLock

# Seconds between two signs of life on a connection that holds an advisory lock.
WATCH_SECONDS: Final = 5.0

_MYSQL: Final = frozenset({"mysql", "mariadb"})
# The kind that fits each database best, and why.
_BEST: Final = {
    "postgresql": ("advisory", "PostgreSQL has advisory locks"),
    **dict.fromkeys(_MYSQL, ("advisory", "the server has GET_LOCK")),
    "sqlite": ("file", "SQLite has no locks between processes that outlast a transaction"),
}
_GALERA: Final = "GET_LOCK reaches one node of a Galera cluster only"


def choose_kind(kind: str, database: Database, connect_timeout: float) -> tuple[str, str]:
    """Decide on a kind of lock.

    Args:
        kind: `auto`, or a kind that must fit the database.
        database: what is to be locked.
        connect_timeout: seconds that one attempt to connect may take; only MariaDB and MySQL are
            asked.

    Returns:
        The kind, and why it is this one.

    Raises:
        ConfigurationError: the kind does not fit the database.
        UnavailableError, RefusedError: the server could not be asked.
    """
    backend = database.url.get_backend_name()
    if kind != "auto":
        _demand_fit(kind, backend, database, connect_timeout)
    if kind == "none":
        return "none", "chosen in the settings"
    if is_memory(database.url):
        return "none", "nobody else can reach a database in memory"
    if kind != "auto":
        return kind, "chosen in the settings"
    return _choose(backend, database, connect_timeout)


@dataclass(frozen=True)
class LockOptions:
    """How a lock connects and keeps itself alive.

    Args:
        connect_timeout: seconds that one attempt to connect may take.
        lease: seconds until an abandoned lease may be taken over.
        watch: seconds between two looks at an advisory or file lock.
        token: whose leases they are; locks with the same one do not wait for each other.
    """

    connect_timeout: float
    lease: float = LEASE_SECONDS
    watch: float = WATCH_SECONDS
    token: str | None = None


def make_lock(kind: str, target: LockTarget, options: LockOptions) -> Lock:
    """Make the lock of a kind that fits; nothing is opened.

    Args:
        kind: `advisory`, `table` or `file`.
        target: what to lock.
        options: times and token.
    """
    timeout = options.connect_timeout
    if kind == "table":
        lease, token = options.lease, options.token
        return LeaseLock(target, lease=lease, connect_timeout=timeout, token=token)
    if kind == "file":
        return FileLock(target, interval=options.watch)
    if target.database.url.get_backend_name() in _MYSQL:
        return MysqlLock(target, interval=options.watch, connect_timeout=timeout)
    return PostgresLock(target, interval=options.watch, connect_timeout=timeout)


def _choose(backend: str, database: Database, connect_timeout: float) -> tuple[str, str]:
    if backend in _MYSQL and _is_galera(database, connect_timeout):
        return "table", _GALERA
    return _BEST.get(backend, ("table", f"no other lock is known for {backend}"))


def _demand_fit(kind: str, backend: str, database: Database, connect_timeout: float) -> None:
    best, _why = _BEST.get(backend, ("table", ""))
    if kind == "advisory" and best != "advisory":
        raise _unfit(kind, database, f"{backend} has no advisory locks")
    if kind == "file" and best != "file":
        raise _unfit(kind, database, f"{backend} is no file that another migrator could lock")
    if kind == "advisory" and backend in _MYSQL and _is_galera(database, connect_timeout):
        raise _unfit(kind, database, _GALERA)


def _unfit(kind: str, database: Database, reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"the lock kind {kind} does not fit database {database.name}: {reason}",
        hint="leave the lock at auto, or set it to table",
        database=database.name,
        kind=kind,
    )


def _is_galera(database: Database, connect_timeout: float) -> bool:
    target = LockTarget(database, None, "")
    try:
        with lock_engine(target, connect_timeout, autocommit=True).connect() as connection:
            query = "SHOW GLOBAL VARIABLES LIKE 'wsrep_on'"
            row = connection.exec_driver_sql(query).first()
    except DBAPIError as error:
        found = diagnose(error, database.url)
        raise make_error(found, database.url, database.name) from error
    return row is not None and str(row[1]).upper() in {"ON", "1"}


@dataclass(frozen=True)
class Choice:
    """A lock, why it is of its kind, and the names of the databases that it covers."""

    lock: Lock
    why: str
    databases: list[str]

    def fields(self) -> dict[str, object]:
        """Give what every log line about it says."""
        shared = {"covers": self.databases} if len(self.databases) > 1 else {}
        return {"database": self.databases[0], "kind": self.lock.kind, **shared}
