"""What is particular to SQLite."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import struct
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import URL, Connection

from .causes import PLACE
from .dialect import Dialect, to_milliseconds
from .errors import UnusableError
from .url import is_memory, sqlite_path

_FOLDER: Final = "mount the volume, create the folder, and let this user write there"
# Waits out another process's short transaction; a longer one is the caller's next try.
_BUSY_TIMEOUT: Final = 0.25
_CLOCK: Final = "SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"

# Behind the name of a database's file: that of the lock which its migrator holds.
LOCK_SUFFIX: Final = ".lock"
# C's struct flock on Linux: type, whence, start, length, process.
LOCK_RANGE: Final = "hhqqi4x"

_VERSION_TABLES: Final = """
    SELECT m.name FROM sqlite_master m JOIN pragma_table_info(m.name) p WHERE m.type = 'table'
    GROUP BY m.name HAVING count(*) = 1 AND max(p.name) = 'version_num' ORDER BY 1
"""


class SQLite(Dialect):
    """SQLite, in a file or in memory."""

    can_transact_ddl = True

    def is_autocommitting(self, connection: Connection) -> bool:
        """See whether a statement has left a transaction open, the driver's or an own BEGIN's."""
        return getattr(connection.connection.driver_connection, "in_transaction", True) is False

    def arguments(self, url: URL, seconds: float, answer: float | None = None) -> dict[str, Any]:
        """Limit the wait for another process's lock, which is all that connecting can wait for."""
        return {"timeout": seconds} if url.get_driver_name() == "pysqlite" else {}

    def identify(self, connection: Connection) -> tuple[str, ...]:
        """Name the file that is open, its links resolved."""
        files = {row[1]: row[2] for row in connection.exec_driver_sql("PRAGMA database_list")}
        return "sqlite", os.path.realpath(files["main"]) if files["main"] else ":memory:"

    def find_version_tables(self, connection: Connection) -> Sequence[str]:
        """Look in the main file."""
        return connection.exec_driver_sql(_VERSION_TABLES).scalars().all()

    def read_clock(self, connection: Connection) -> int:
        """Read the machine's clock, through the database."""
        return to_milliseconds(connection.exec_driver_sql(_CLOCK).scalar_one())

    def cancel(self, connection: Connection, session: int | None) -> None:
        """Interrupt the statement (sqlite3_interrupt)."""
        driver: Any = connection.connection.dbapi_connection
        if hasattr(driver, "interrupt"):  # not the adapter of an asynchronous driver
            driver.interrupt()


DIALECT: Final = SQLite()


def probe_file(url: URL, *, writes: bool) -> str:
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
    try:
        _require_place(path, writes=writes)
    except PermissionError as error:
        raise _refused(f"{error.filename} may not be looked at", _FOLDER) from error
    if writes and (url.query.get("mode") == "ro" or "immutable" in url.query):
        raise _refused("the URL opens the file for reading only", "drop mode=ro from the URL")
    if path.exists() and url.get_driver_name() == "pysqlite":
        _ask(path, writes=writes)
    return version


def _require_place(path: Path, *, writes: bool) -> None:
    folder = path.parent
    if not folder.is_dir():
        raise _refused(f"the folder {folder} does not exist", _FOLDER)
    if not _may(folder, os.X_OK):
        raise _refused(f"the folder {folder} may not be entered", _FOLDER)
    if path.is_dir():
        raise _refused(f"{path} is a folder", "name a file in the URL")
    # SQLite writes a journal beside the file, so the folder counts even where the file exists.
    if (writes or not path.exists()) and not _may(folder, os.W_OK | os.X_OK):
        raise _refused(f"the folder {folder} may not be written", _FOLDER)
    if path.exists() and not _may(path, os.R_OK | (os.W_OK if writes else 0)):
        raise _refused(f"the file {path} may not be {'written' if writes else 'read'}")


def _may(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def _ask(path: Path, *, writes: bool) -> None:
    # mode=rw never creates the file, should it vanish meanwhile (https://www.sqlite.org/uri.html).
    # With an authority, an empty one: what stands behind two slashes would be taken for it.
    uri = f"file://{quote(str(path))}?mode=rw"
    with closing(
        sqlite3.connect(uri, uri=True, timeout=_BUSY_TIMEOUT, isolation_level=None)
    ) as connection:
        # Reads the header: SELECT 1 would not look into the file at all.
        try:
            connection.execute("PRAGMA schema_version").fetchone()
            if writes:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
        except sqlite3.OperationalError:
            # One transaction is as long as a run: who comes then is to wait in the lock for it.
            if not (writes and _is_migrating(path)):
                raise


def _is_migrating(path: Path) -> bool:
    """Tell whether another migrator holds the lock of a database."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(os.path.realpath(path) + LOCK_SUFFIX, flags)
    except OSError:
        return False
    try:
        return is_lock_shown(descriptor)
    finally:
        os.close(descriptor)


def is_lock_shown(descriptor: int) -> bool:
    """Ask the kernel whether a write lock on a file would be refused; none is taken."""
    if sys.platform != "linux":
        return os.fstat(descriptor).st_size > 0
    wanted = struct.pack(LOCK_RANGE, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    answer: int = struct.unpack(LOCK_RANGE, fcntl.fcntl(descriptor, fcntl.F_GETLK, wanted))[0]
    return answer != fcntl.F_UNLCK


def _refused(reason: str, hint: str | None = None) -> UnusableError:
    return UnusableError(PLACE, reason, hint=hint)
