"""Lets `env.py` run for a look: it takes no lock there, and waits in none for long.

Repositories guard their migrations in `env.py`: with an advisory lock, `LOCK TABLE` or a file. A
look that waited there would hold a snapshot meanwhile, for which the migration's own
`CREATE INDEX CONCURRENTLY` waits: a deadlock (PostgreSQL manual, "CREATE INDEX", Building Indexes
Concurrently). And a lock that a pooled connection, or a file that is not closed, keeps would stop
the run after the look.
"""

from __future__ import annotations

import fcntl
import functools
import re
from _thread import get_ident
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Engine, event

from flask_migrate_sidecar.database.dialect import find_dialect

# PostgreSQL manual 9.27.10 and "LOCK"; MariaDB manual "GET_LOCK" and "LOCK TABLES".
_LOCKS: Final = re.compile(
    r"\bpg_(try_)?advisory_\w*lock\w*\s*\("
    r"|\b(get_lock|release_lock|release_all_locks)\s*\("
    r"|^\s*(un)?lock\s+",
    re.IGNORECASE,
)
# PostgreSQL manual, "SELECT", The Locking Clause.
_LOCKS_ROWS: Final = re.compile(
    r"\sfor\s+(no\s+key\s+update|update|key\s+share|share)\b"
    r"(\s+of\s+[\w\".,\s]+?)?(\s+nowait|\s+skip\s+locked)?\s*;?\s*$",
    re.IGNORECASE,
)
# The name under which `env.py` may read the answer.
_NAME: Final = re.compile(r"\s(as\s+\"?\w+\"?)\s*;?\s*$", re.IGNORECASE)


@dataclass(frozen=True)
class _Look:
    """A look that goes on.

    Args:
        thread: the one that looks; others of the application's are none of ours.
        limited: drivers' connections whose limit is to be taken back, and how.
    """

    thread: int
    limited: list[tuple[Any, str]]


_looks: Final[list[_Look]] = []


@contextmanager
def locks_left_out() -> Iterator[None]:
    """Leave out what takes a lock on whichever connection, and limit the wait for all others."""
    look = _Look(get_ident(), [])
    _looks.append(look)
    try:
        yield
    finally:
        _looks.remove(look)
        for driver, statement in look.limited:
            # Most are closed by now; the others are in a pool, or the application's to go on with.
            with suppress(Exception):
                _execute(driver, statement)


def _find_look() -> _Look | None:
    """Give the look of this thread; the system's number for it, whatever gevent says."""
    thread = get_ident()
    return next((look for look in _looks if look.thread == thread), None)


# Once for all: an engine that runs a statement in another thread meanwhile reads the same list.
@event.listens_for(Engine, "before_cursor_execute", retval=True)
def _leave_out(
    _connection: Connection,
    _cursor: Any,
    statement: str,
    parameters: Any,
    _context: Any,
    _many: bool,
) -> tuple[str, Any]:
    if _find_look() is None:
        return statement, parameters
    if _LOCKS.search(statement):
        # What an `env.py` takes for a lock that was to be had.
        name = _NAME.search(statement)
        return f"SELECT 1 {name[1]}" if name else "SELECT 1", type(parameters)()
    return _LOCKS_ROWS.sub("", statement), parameters


@event.listens_for(Engine, "begin")
def _limit(connection: Connection) -> None:
    look = _find_look()
    if look is None:
        return
    dialect = find_dialect(connection.dialect.name)
    driver: Any = connection.connection.dbapi_connection
    is_autocommitting = getattr(driver, "autocommit", False) is True
    limiting = dialect.lock_limit_of_session if is_autocommitting else dialect.lock_limit
    if limiting is None:
        return
    try:
        _execute(driver, limiting.set)
    except Exception:  # noqa: BLE001 - no look fails for the lack of a limit
        # Not every server that speaks PostgreSQL's protocol has it. Of a connection that is
        # dead the next statement tells.
        with suppress(Exception):
            driver.rollback()
    else:
        if limiting.unset:
            look.limited.append((driver, limiting.unset))


def _execute(driver: Any, statement: str) -> None:
    cursor = driver.cursor()
    try:
        cursor.execute(statement)
    finally:
        cursor.close()


def _left_out_of_looks(take: Callable[..., None]) -> Callable[..., None]:
    """Give what takes a file's lock, or gives it back, but in no look."""

    @functools.wraps(take)
    def take_or_not(*arguments: Any, **options: Any) -> None:
        if _find_look() is None:
            take(*arguments, **options)

    return take_or_not


# Before the application and its packages look them up. Our own lock is asked for in no look.
fcntl.flock, fcntl.lockf = map(_left_out_of_looks, (fcntl.flock, fcntl.lockf))
