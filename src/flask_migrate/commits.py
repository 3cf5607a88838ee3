"""Whether what a command did was committed: an `env.py` can begin a transaction and forget it.

Alembic leaves a transaction alone that is there before `context.configure()`
(`MigrationContext.configure`), so whoever runs a statement on the connection before has to commit.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from alembic.util import CommandError
from sqlalchemy import Connection, event

# Each event, and whether it keeps what was done.
_ENDS = {
    "commit": True,
    "commit_twophase": True,
    "rollback": False,
    "rollback_twophase": False,
}


class Commits:
    """Watches the connections on which something was done, until it is committed."""

    def __init__(self) -> None:
        # Whether something was done there that is not committed yet.
        self._is_open: dict[Connection, bool] = {}
        self._is_lost = False

    def expect(self, connection: Connection | None) -> None:
        """Want to see what was done until now on a connection committed."""
        if connection is None or not connection.in_transaction():
            return
        if connection not in self._is_open:
            for name, keeps in _ENDS.items():
                event.listen(connection, name, self._make_listener(keeps=keeps))
        self._is_open[connection] = True

    def require(self) -> None:
        """Want nothing to be rolled back; what is still open is its holder's to commit.

        Raises:
            CommandError: something was.
        """
        if self._is_lost:
            raise CommandError(
                "What ran was not committed: env.py runs a statement on its connection before "
                "context.configure(), which begins a transaction that Alembic leaves to it. "
                "Commit there: connection.commit()"
            )

    def _make_listener(self, *, keeps: bool) -> Callable[..., None]:
        def note(connection: Connection, *_details: Any) -> None:
            # SQLAlchemy tells of a rollback too where the driver has no transaction, as AUTOCOMMIT.
            if self._is_open.get(connection) and (keeps or _holds(connection)):
                self._is_open[connection] = False
                self._is_lost = self._is_lost or not keeps

        return note


def _holds(connection: Connection) -> bool:
    """Tell whether a connection has a transaction that is real, as far as its driver says."""
    with suppress(Exception):  # of a connection that is lost, nothing can be asked
        driver: Any = connection.connection.driver_connection
        if hasattr(driver, "in_transaction"):  # sqlite3, aiosqlite
            return bool(driver.in_transaction)
        if hasattr(driver, "info"):  # psycopg, psycopg2
            return int(driver.info.transaction_status) != 0
        if hasattr(driver, "get_autocommit"):  # PyMySQL, mysqlclient
            return not driver.get_autocommit()
    return True
