"""Follows the statements of a run: what they commit stays, and without the lock none is begun."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection, Engine, event

from flask_migrate_sidecar.process import threads

# A COMMIT of the revision's own, alone or among other statements.
_COMMITS: Final = re.compile(r"\s*END\b|(?:^|;)\s*COMMIT\b", re.IGNORECASE)
# Comments, texts, and the bodies of functions, which commit nothing now.
_BODY: Final = re.compile(r"/\*.*?\*/|--[^\n]*|'[^']*'|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$", re.DOTALL)
_MAKES: Final = re.compile(r"\bINTO\b", re.IGNORECASE)
# What leaves nothing behind, though each statement is its own transaction.
_LEAVES_NOTHING: Final = re.compile(
    r"\s*(?:SELECT|SHOW|SET|RESET|EXPLAIN|BEGIN|ROLLBACK|SAVEPOINT|RELEASE)\b", re.IGNORECASE
)


@contextmanager
def commits_noted(note: Callable[[], None]) -> Iterator[None]:
    """Call a function whenever something is committed, on whichever connection of the process."""
    commits = _Commits(note)
    listeners: dict[str, Callable[..., None]] = {
        "commit": commits.end_transaction,
        "rollback": commits.look_behind,
        "before_cursor_execute": commits.begin_statement,
        "after_cursor_execute": commits.end_statement,
    }
    for name, listener in listeners.items():
        event.listen(Engine, name, listener)
    try:
        yield
    finally:
        for name, listener in listeners.items():
            event.remove(Engine, name, listener)


class _Commits:
    """Sees what is committed.

    SQLAlchemy tells of its own commits (`ConnectionEvents.commit`); a statement that commits, and
    one that runs in no transaction (`autocommit_block()`), are seen when they run. Where the driver
    itself was told to commit, its transaction is gone when SQLAlchemy comes to it again.

    Args:
        note: called for each.
    """

    def __init__(self, note: Callable[[], None]) -> None:
        self._note = note
        self._writing: set[Connection] = set()
        self._open: set[Connection] = set()

    def begin_statement(
        self, connection: Connection, _cursor: Any, statement: str, *_: Any
    ) -> None:
        self.look_behind(connection)
        # One that fails leaves an index behind, which is INVALID.
        if "CONCURRENTLY" in statement.upper() and _is_autocommitting(connection):
            self._note()

    def end_statement(self, connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        told = _BODY.sub(" ", statement)
        writes = not _LEAVES_NOTHING.match(told) or bool(_MAKES.search(told))
        if writes:
            self._writing.add(connection)
        is_final = _is_autocommitting(connection) and writes
        if is_final or _COMMITS.search(told):
            self._note()
        if not _is_idle(connection):
            self._open.add(connection)

    def end_transaction(self, connection: Connection) -> None:
        self.look_behind(connection)
        # The threads of the locks renew and look: what they commit is no migration's.
        if connection in self._writing and not threads.is_ours():
            self._note()
        self._writing.discard(connection)

    def look_behind(self, connection: Connection) -> None:
        """Note a transaction that somebody has ended behind SQLAlchemy's back."""
        if connection in self._open and _is_idle(connection):
            self._note()
        self._open.discard(connection)


def _is_autocommitting(connection: Connection) -> bool:
    driver = connection.connection.dbapi_connection
    return getattr(driver, "autocommit", False) is True


def _is_idle(connection: Connection) -> bool:
    """Tell whether the driver is in no transaction, as psycopg and psycopg2 know (libpq does)."""
    if connection.invalidated:  # a lost one has no driver's connection, and asks for another
        return False
    status = getattr(connection.connection.dbapi_connection, "info", None)
    return getattr(status, "transaction_status", None) == 0


@contextmanager
def statements_checked(check: Callable[[Connection], None]) -> Iterator[None]:
    """Call a function before each statement, on whichever connection; it raises to prevent it."""

    def begin(connection: Connection, *_: Any) -> None:
        check(connection)

    event.listen(Engine, "before_cursor_execute", begin)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", begin)
