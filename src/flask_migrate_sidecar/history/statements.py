"""Follows the statements of a run: what they commit stays, and without the lock none is begun."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import ExceptionContext

from flask_migrate_sidecar.database.dialect import find_dialect
from flask_migrate_sidecar.process import threads

# A COMMIT of the revision's own, alone or among other statements.
_COMMITS: Final = re.compile(r"(?:^|;)\s*(?:COMMIT|END)\b", re.IGNORECASE)
# Comments, texts, and the bodies of functions and triggers, which commit nothing now.
_BODY: Final = re.compile(
    r"/\*.*?\*/|--[^\n]*|\b[eE]'(?:[^'\\]|\\.)*'|'[^']*'|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$"
    r"|(?i:\bBEGIN\s+(?!TRANSACTION|WORK|DEFERRED|IMMEDIATE|EXCLUSIVE|ISOLATION|READ)\w.*?\bEND\b)",
    re.DOTALL,
)
# Behind a COMMIT in the same text, so that a transaction is open again.
_BEGINS: Final = re.compile(r";\s*(?:BEGIN|START)\b", re.IGNORECASE)
# The column in which Alembic keeps a version, whatever the table is called.
_VERSION: Final = "version_num"
_MAKES: Final = re.compile(r"\bINTO\b", re.IGNORECASE)
# What leaves nothing behind, though each statement is its own transaction.
_LEAVES_NOTHING: Final = re.compile(
    r"\s*(?:SELECT|SHOW|SET|PRAGMA|RESET|EXPLAIN|BEGIN|ROLLBACK|SAVEPOINT|RELEASE)\b", re.IGNORECASE
)


@contextmanager
def commits_noted(note: Callable[[], None], take_back: Callable[[], None]) -> Iterator[Commits]:
    """Watch for what is committed, on whichever connection of the process.

    Args:
        note: is called whenever something is.
        take_back: is called where that has failed, and nothing was.
    """
    commits = Commits(note, take_back)
    listeners: list[tuple[str, Callable[..., None]]] = [
        ("engine_connect", commits.watch),
        ("begin", commits.start),
        ("commit", commits.commit),
        ("rollback", commits.look),
        ("before_cursor_execute", commits.begin),
        ("after_cursor_execute", commits.end),
        ("handle_error", commits.fail),
    ]
    for name, listener in listeners:
        event.listen(Engine, name, listener)
    try:
        yield commits
    finally:
        for name, listener in listeners:
            event.remove(Engine, name, listener)


class Commits:
    """Tells of commits.

    SQLAlchemy tells of its own (`ConnectionEvents.commit`); a statement that commits, and one that
    runs in no transaction (`autocommit_block()`), are seen when they run. Where the driver itself
    was told to commit, its transaction is gone when SQLAlchemy comes to it again.

    Args:
        note: is called for each.
        take_back: is called for one that has failed.
    """

    def __init__(self, note: Callable[[], None], take_back: Callable[[], None]) -> None:
        self._note, self._take_back = note, take_back
        # The one whose COMMIT SQLAlchemy is about to send.
        self._committing: Connection | None = None
        self._writing: set[Connection] = set()
        # Those that have written a revision's version.
        self._versions: set[Connection] = set()
        # Those whose transaction was open when they were seen last.
        self._open: set[Connection] = set()

    def watch(self, connection: Connection) -> None:
        """Look before each statement, before the library begins what is over anew."""
        event.listen(connection, "before_cursor_execute", lambda *_: self.look(connection))

    def start(self, connection: Connection) -> None:
        """See SQLAlchemy begin, which is an own BEGIN with some drivers only."""
        self._committing = None
        if not _is_idle(connection):
            self._open.add(connection)

    def commit(self, connection: Connection) -> None:
        """See SQLAlchemy commit."""
        self.look(connection)
        # The threads of the locks renew and look: what they commit is no migration's.
        if connection in self._writing and not threads.is_ours():
            self._note()
            self._committing = connection
        self._writing.discard(connection)
        self._versions.discard(connection)
        self._open.discard(connection)

    def look(self, connection: Connection) -> None:
        """See that a transaction is over which nobody was seen to end: `executescript()` has."""
        # A connection that was lost has no driver's, and would ask for another one.
        if connection in self._open and not connection.invalidated:
            self._open.discard(connection)
            if _is_idle(connection):
                self._versions.discard(connection)
                self._note()

    def is_pending(self, connection: Connection | None) -> bool:
        """Tell whether a connection holds versions that it has written open, uncommitted."""
        if connection is None or connection.closed or connection.invalidated:
            return False
        return connection in self._versions and _is_idle(connection) is False

    def begin(self, connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        """See a statement begin."""
        # One that fails leaves an index behind, which is INVALID.
        if "CONCURRENTLY" in statement.upper() and _is_autocommitting(connection):
            self._note()

    def end(self, connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        """See a statement that has run."""
        told = _BODY.sub(" ", statement)
        writes = not _LEAVES_NOTHING.match(told) or bool(_MAKES.search(told))
        if writes:
            self._writing.add(connection)
        if writes and _VERSION in statement:
            self._versions.add(connection)
        is_autocommitting = _is_autocommitting(connection)
        is_final = is_autocommitting and writes
        if is_final or self._has_ended(connection, told):
            self._versions.discard(connection)
            self._note()
        if not is_autocommitting:
            self._open.add(connection)

    def _has_ended(self, connection: Connection, told: str) -> bool:
        """Tell whether a statement that looks like a COMMIT was one: a trigger has an END too."""
        is_open = _is_idle(connection) is False and not _BEGINS.search(told)
        return bool(_COMMITS.search(told)) and not is_open

    def fail(self, context: ExceptionContext) -> None:
        """See a statement fail: some errors end SQLite's transaction (lang_transaction.html)."""
        if context.connection is None:
            return
        self._open.discard(context.connection)
        # A COMMIT by SQLAlchemy is no statement. Of one whose answer was lost nobody knows.
        is_commit = context.statement is None and context.connection is self._committing
        if is_commit and not context.is_disconnect:
            self._take_back()


def _is_autocommitting(connection: Connection) -> bool:
    return find_dialect(connection.dialect.name).is_autocommitting(connection)


def _is_idle(connection: Connection) -> bool | None:
    return find_dialect(connection.dialect.name).is_idle(connection)


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
