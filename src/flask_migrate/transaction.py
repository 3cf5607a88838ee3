"""Runs the revisions of a SQLite database in transactions that are real.

SQLite can take CREATE, ALTER and DROP back, but Python's driver begins a transaction only before
INSERT, UPDATE, DELETE and REPLACE (Python manual, "sqlite3", Transaction control), so that they are
final one by one, and a revision that fails leaves its first ones behind. SQLAlchemy tells what to
do (manual, "SQLite", Serializable isolation / Savepoints / Transactional DDL): an own BEGIN.

Enforced foreign keys let DROP TABLE delete the rows that refer to the table's, or refuse it; batch
operations drop each table that they copy. SQLite tells what to do (manual, "ALTER TABLE", Making
Other Kinds Of Table Schema Changes): they are off before the transaction, checked before its
commit, and on again behind it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.engine import Connection, make_url

from .foreign_keys import ForeignKeys

if TYPE_CHECKING:
    from alembic.runtime.environment import EnvironmentContext

_COMMITS = re.compile(r"\s*(?:COMMIT|END)\b", re.IGNORECASE)
# What SQLite refuses inside of a transaction, and so ends the one before it (VACUUM; BEGIN; PRAGMA
# journal_mode: SQLite manual).
_STANDS_ALONE = re.compile(
    r"\s*(?:(?:BEGIN|VACUUM|DETACH)\b|PRAGMA\s+(?:\w+\.)?journal_mode\s*[=(])", re.IGNORECASE
)
# Python 3.12 and later: `sqlite3.LEGACY_TRANSACTION_CONTROL`.
_LEGACY_CONTROL = -1


class Transaction:
    """What one connection of `env.py` runs in, from `context.configure()` until it is given back.

    Args:
        connection: to SQLite.
    """

    def __init__(self, connection: Connection) -> None:
        fairy: Any = connection.connection
        self._driver: Any = fairy.dbapi_connection
        # An asynchronous driver's adapter does not tell.
        self._state: Any = fairy.driver_connection
        self._errors: Any = connection.dialect.loaded_dbapi.Error
        self._pool = connection.engine.pool
        self._control = getattr(self._driver, "autocommit", _LEGACY_CONTROL)
        self._is_checked = self._is_over = self._is_last = False
        self._take_over(connection)

    def _take_over(self, connection: Connection) -> None:
        """Have the driver commit nothing by itself, nor SQLite follow foreign keys."""
        if self._control != _LEGACY_CONTROL:
            self._driver.autocommit = _LEGACY_CONTROL
        self._keys = ForeignKeys(self._ask)
        if self._keys.are_enforced and self._is_begun:
            self._driver.commit()  # an application's BEGIN, in which nothing can be switched off
        self._keys.enforce(enforced=False)
        event.listen(connection, "begin", self._begin)
        event.listen(connection, "before_cursor_execute", self._watch)
        event.listen(connection, "commit", self._commit)
        event.listen(connection, "rollback", self._roll_back)
        event.listen(self._pool, "checkin", self._return)
        if connection.in_transaction():
            self._begin(connection)

    @property
    def _is_begun(self) -> bool:
        return bool(self._state.in_transaction)

    def _ask(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement past SQLAlchemy, which would begin a transaction of its own for it."""
        cursor = self._driver.cursor()
        try:
            cursor.execute(statement)
            return [tuple(row) for row in cursor.fetchall()] if cursor.description else []
        finally:
            cursor.close()

    def _begin(self, connection: Connection) -> None:
        """Begin with the right to write; a BEGIN of the application's listener comes behind this.

        Whoever reads first and writes later is refused at once if another one has written between
        (SQLite manual, "Isolation"); but who has nothing to write is not to wait for a writer.
        """
        if self._is_last and not self._is_begun:
            self._restore()
        if self._is_over or self._is_begun or _is_autocommitting(connection):
            return
        self._keys.enforce(enforced=False)
        try:
            self._ask("BEGIN IMMEDIATE")
        except self._errors:
            self._ask("BEGIN")

    def _watch(self, connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        """Check foreign keys before a COMMIT of a revision's own, and begin again behind it."""
        if self._is_over or _is_autocommitting(connection):
            return
        if _COMMITS.match(statement):
            self.check()
        elif _STANDS_ALONE.match(statement):
            self.check()
            self._driver.commit()
        else:
            self._begin(connection)
        self._is_checked = False

    def _commit(self, _connection: Connection) -> None:
        self.check()

    def check(self) -> None:
        """Check the foreign keys before a commit, which does not happen where they point nowhere.

        Raises:
            CommandError: they do; all is rolled back.
        """
        if self._is_over or self._is_checked or not self._is_begun:
            return
        try:
            self._keys.check()
        except BaseException:
            self._driver.rollback()
            raise
        self._is_checked = True

    def _roll_back(self, connection: Connection) -> None:
        """Roll back where SQLAlchemy spares a driver that it takes to be autocommitting that."""
        is_spared = getattr(connection.dialect, "skip_autocommit_rollback", False)
        if is_spared and not self._is_over and self._is_begun:
            self._driver.rollback()

    def before_steps(self, steps: Iterable[Any] | None) -> Iterator[Any]:
        """Hand steps on, and look at the foreign keys before the first one."""
        for step in steps or ():
            self._keys.note_violations()
            yield step

    def _return(self, driver: Any, _record: Any) -> None:
        if driver is self._driver:
            self._restore()

    def close(self, connection: Connection) -> None:
        """Let go of a connection that `env.py` keeps; within a transaction, behind that one."""
        self._is_last = True
        if self._is_over or connection.closed or not connection.in_transaction():
            self._restore()
            event.remove(self._pool, "checkin", self._return)

    def _restore(self) -> None:
        """Leave the driver's connection as it was found, for whoever gets it next."""
        if self._is_over:
            return
        self._is_over = True
        # It may be closed, or wait for a loop that has ended.
        with suppress(Exception):
            if self._is_begun:
                self._driver.rollback()
            self._keys.enforce(enforced=True)
            if self._control != _LEGACY_CONTROL:
                self._driver.autocommit = self._control


class Transactions:
    """The connections to SQLite that one run of `env.py` configures."""

    def __init__(self) -> None:
        self._by_connection: dict[Connection, Transaction] = {}

    def take(self, connection: Any) -> bool:
        """Take a connection over; tell whether it is one that can be."""
        if not isinstance(connection, Connection) or _is_autocommitting(connection):
            return False
        if not hasattr(connection.connection.driver_connection, "in_transaction"):
            return False  # a driver of which nothing is known
        if connection not in self._by_connection:
            self._by_connection[connection] = Transaction(connection)
        return True

    def find(self, connection: Any) -> Transaction | None:
        """Give the transaction of a connection, if it is one of these."""
        return self._by_connection.get(connection) if connection is not None else None

    @contextmanager
    def around(self, environment: EnvironmentContext) -> Iterator[None]:
        """Run the migrations of one database, of several before the first one commits.

        An `env.py` that begins no transaction needed none on SQLite, so it is given one; and the
        version table was made at once, also where no revision of its own commits it.
        """
        context = environment.get_context()
        connection = context.connection
        transaction = self.find(connection)
        if connection is None or transaction is None:
            yield
            return
        is_begun = context._transaction is not None or context._in_external_transaction  # noqa: SLF001
        with nullcontext() if is_begun else environment.begin_transaction():
            yield
            transaction.check()
        if not is_begun and connection.in_transaction():
            connection.commit()

    def close(self) -> None:
        """Leave all of them as they were found."""
        for connection, transaction in self._by_connection.items():
            transaction.close(connection)


def is_sqlite(options: Mapping[str, Any]) -> bool:
    """Tell whether the arguments of `context.configure()` name a SQLite database."""
    connection, url = options.get("connection"), options.get("url")
    if connection is not None:
        return bool(connection.dialect.name == "sqlite")
    name = make_url(url).get_backend_name() if url else options.get("dialect_name")
    return name == "sqlite"


def _is_autocommitting(connection: Connection) -> bool:
    """Tell whether `autocommit_block()`, or `env.py`, wants each statement to be final."""
    return connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT"
