"""Lets `env.py` run for a look: it takes no lock there, and waits in none for long.

Repositories guard their migrations in `env.py`, with an advisory lock or with `LOCK TABLE`. A look
that waited there would hold a snapshot meanwhile, for which the migration's own
`CREATE INDEX CONCURRENTLY` waits: a deadlock (PostgreSQL manual, "CREATE INDEX", Building Indexes
Concurrently). And a lock that a pooled connection keeps would stop the run after the look.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
# What an `env.py` takes for a lock that was to be had.
_GRANTED: Final = "SELECT 1"


@contextmanager
def locks_left_out() -> Iterator[None]:
    """Leave out what takes a lock on whichever connection, and limit the wait for all others."""
    limited: list[tuple[Any, str]] = []

    def leave_out(
        _connection: Connection,
        _cursor: Any,
        statement: str,
        parameters: Any,
        _context: Any,
        _many: bool,
    ) -> tuple[str, Any]:
        if _LOCKS.search(statement):
            return _GRANTED, type(parameters)()
        return _LOCKS_ROWS.sub("", statement), parameters

    def limit(connection: Connection) -> None:
        limiting = find_dialect(connection.dialect.name).lock_limit
        if limiting is None:
            return
        driver: Any = connection.connection.dbapi_connection
        try:
            _execute(driver, limiting.set)
        except Exception:  # noqa: BLE001 - no look fails for the lack of a limit
            # Not every server that speaks PostgreSQL's protocol has it. Of a connection that is
            # dead the next statement tells.
            with suppress(Exception):
                driver.rollback()
        else:
            if limiting.unset:
                limited.append((driver, limiting.unset))

    event.listen(Engine, "before_cursor_execute", leave_out, retval=True)
    event.listen(Engine, "begin", limit)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", leave_out)
        event.remove(Engine, "begin", limit)
        for driver, statement in limited:
            # Most are closed by now; the others are in a pool, or the application's to go on with.
            with suppress(Exception):
                _execute(driver, statement)


def _execute(driver: Any, statement: str) -> None:
    cursor = driver.cursor()
    try:
        cursor.execute(statement)
    finally:
        cursor.close()
