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
    """Call a function whenever something is committed, on whichever connection of the process.

    SQLAlchemy tells of its own commits (`ConnectionEvents.commit`); a statement that commits, and
    one that runs in no transaction (`autocommit_block()`), are seen when they run.
    """
    writing: set[Connection] = set()

    def commit(connection: Connection) -> None:
        # The threads of the locks renew and look: what they commit is no migration's.
        if connection in writing and not threads.is_ours():
            note()
        writing.discard(connection)

    def begin(connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        # One that fails leaves an index behind, which is INVALID.
        if "CONCURRENTLY" in statement.upper() and _is_autocommitting(connection):
            note()

    def end(connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        told = _BODY.sub(" ", statement)
        writes = not _LEAVES_NOTHING.match(told) or bool(_MAKES.search(told))
        if writes:
            writing.add(connection)
        is_final = _is_autocommitting(connection) and writes
        if is_final or _COMMITS.search(told):
            note()

    event.listen(Engine, "commit", commit)
    event.listen(Engine, "before_cursor_execute", begin)
    event.listen(Engine, "after_cursor_execute", end)
    try:
        yield
    finally:
        event.remove(Engine, "commit", commit)
        event.remove(Engine, "before_cursor_execute", begin)
        event.remove(Engine, "after_cursor_execute", end)


def _is_autocommitting(connection: Connection) -> bool:
    driver = connection.connection.dbapi_connection
    return getattr(driver, "autocommit", False) is True


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
