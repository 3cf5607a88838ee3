"""One look at a database: a login is not enough, a query must answer, and writing must be open."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import closing
from pathlib import Path
from threading import Thread
from typing import Final
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, literal, select

from .databases import is_memory, sqlite_path
from .diagnosis import PRIMARY, UnusableError, Verdict

_READ_ONLY: Final = "turn off default_transaction_read_only for this server, database or role"
_FOLDER: Final = "mount the volume, create the folder, and let this user write there"
_FILE: Final = "let this user read and write the file and its folder"
# Waits out another process's short transaction; a longer one is the caller's next try.
_BUSY_TIMEOUT: Final = 0.25
# A signal that comes just before a lock is awaited does not end the waiting (Python checks for
# signals between bytecodes), so one long wait would now and then sleep through an interrupt.
_GLANCE: Final = 0.2


class NoAnswerError(Exception):
    """An attempt has taken its time; it goes on by itself."""


class Attempt:
    """A look at a database on a thread of its own, so that its time limit really holds.

    Drivers cannot promise one: name resolution blocks without a limit, libpq counts anew for each
    address, a query has none, and psycopg2 would not let an interrupt through meanwhile. The
    thread closes its connection itself, whenever it gets out of the driver.

    Args:
        probe: opens, looks, closes; returns the server's version.
    """

    def __init__(self, probe: Callable[[], str]) -> None:
        self._answer: Future[str] = Future()
        Thread(target=self._run, args=(probe,), name="database-probe", daemon=True).start()

    def result(self, *, limit: float) -> str:
        """Give the server's version, or raise what the probe raised.

        Args:
            limit: how long to wait for it, in seconds.

        Raises:
            NoAnswerError: the limit has passed; the attempt still runs, ask again later.
        """
        end = time.monotonic() + limit
        while not self._answer.done():
            left = end - time.monotonic()
            if left <= 0:
                raise NoAnswerError
            wait([self._answer], timeout=min(left, _GLANCE))
        return self._answer.result()

    def _run(self, probe: Callable[[], str]) -> None:
        try:
            self._answer.set_result(probe())
        except BaseException as error:  # noqa: BLE001 - raised again where it is awaited
            self._answer.set_exception(error)


def probe_server(engine: Engine, *, writes: bool) -> str:
    """Log in, ask, and leave; give the server's name and version.

    Args:
        engine: without a pool, so that nothing stays open.
        writes: whether a server that only reads will do.

    Raises:
        UnusableError: it answers, but only reads.
    """
    with engine.connect() as connection:
        connection.scalar(select(literal(1)))
        match engine.dialect.name:
            case "postgresql":
                if writes:
                    _require_postgresql_writes(connection)
                return _postgresql_version(connection)
            case "mysql" | "mariadb":
                if writes:
                    _require_mysql_writes(connection)
                return _mysql_version(connection)
        version = engine.dialect.server_version_info or ()
        return " ".join((engine.dialect.name, ".".join(map(str, version)))).strip()


def probe_sqlite(url: URL, *, writes: bool) -> str:
    """Look at a SQLite file without creating it; give SQLite's version.

    A file that is missing is as good as an empty one, if its folder lets us create it. For a
    command that writes, the write lock is taken and given back at once: this is the only way to
    see that another process holds it, in WAL mode too (https://www.sqlite.org/wal.html).

    Args:
        url: of a file, or of memory, which always answers.
        writes: whether a file that can only be read will do.

    Raises:
        UnusableError: the folder is missing, or the file or folder may not be written.
        sqlite3.Error: what SQLite says, locked files included.
    """
    version = f"SQLite {sqlite3.sqlite_version}"
    if is_memory(url):
        return version
    path = sqlite_path(url)
    _require_sqlite_place(path, writes=writes)
    if writes and (url.query.get("mode") == "ro" or "immutable" in url.query):
        raise _refused("the URL opens the file for reading only", "drop mode=ro from the URL")
    if path.exists() and url.get_driver_name() == "pysqlite":
        _ask_sqlite(path, writes=writes)
    return version


def _require_postgresql_writes(connection: Connection) -> None:
    """Want a primary: it may still be promoted, and a mode of maintenance ends, so wait for it.

    PostgreSQL manual, 9.28 (pg_is_in_recovery) and 20.11.1 (default_transaction_read_only, which
    operators and providers set for a server, a database or a role).
    """
    recovery, read_only = connection.exec_driver_sql(
        "SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('transaction_read_only')"
    ).one()
    if recovery:
        raise UnusableError(Verdict.NOT_READY, "the server is a standby, it only reads", PRIMARY)
    if read_only == "on":
        reason = "default_transaction_read_only is on"
        raise UnusableError(Verdict.NOT_READY, reason, _READ_ONLY)


def _require_mysql_writes(connection: Connection) -> None:
    """Want a server that is not read_only, whoever we are.

    A user with READ_ONLY ADMIN (SUPER) could write on a replica, which would part it from its
    primary. SHOW instead of @@: it passes over the variables that a server does not have.
    """
    rows = connection.exec_driver_sql(
        "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('read_only', 'innodb_read_only')"
    )
    on = sorted(name for name, value in rows if str(value).upper() not in ("OFF", "0"))
    if on:
        raise UnusableError(Verdict.NOT_READY, f"the server only reads: {', '.join(on)}", PRIMARY)


def _postgresql_version(connection: Connection) -> str:
    # Name, version, then what built it and where it runs.
    text = str(connection.exec_driver_sql("SELECT pg_catalog.version()").scalar())
    return " ".join(text.split()[:2])


def _mysql_version(connection: Connection) -> str:
    number, _, rest = str(connection.exec_driver_sql("SELECT VERSION()").scalar()).partition("-")
    return f"{'MariaDB' if 'mariadb' in rest.lower() else 'MySQL'} {number}"


def _require_sqlite_place(path: Path, *, writes: bool) -> None:
    folder = path.parent
    if not folder.is_dir():
        raise _refused(f"the folder {folder} does not exist", _FOLDER)
    if path.is_dir():
        raise _refused(f"{path} is a folder", "name a file in the URL")
    # SQLite writes a journal beside the file, so the folder counts even where the file exists.
    if (writes or not path.exists()) and not _may(folder, os.W_OK | os.X_OK):
        raise _refused(f"the folder {folder} may not be written", _FOLDER)
    if path.exists() and not _may(path, os.R_OK | (os.W_OK if writes else 0)):
        raise _refused(f"the file {path} may not be {'written' if writes else 'read'}", _FILE)


def _may(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def _ask_sqlite(path: Path, *, writes: bool) -> None:
    # mode=rw never creates the file, should it vanish meanwhile (https://www.sqlite.org/uri.html).
    uri = f"file:{quote(str(path))}?mode=rw"
    with closing(
        sqlite3.connect(uri, uri=True, timeout=_BUSY_TIMEOUT, isolation_level=None)
    ) as connection:
        # Reads the header: SELECT 1 would not look into the file at all.
        connection.execute("PRAGMA schema_version").fetchone()
        if writes:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")


def _refused(reason: str, hint: str) -> UnusableError:
    return UnusableError(Verdict.REFUSED, reason, hint)
