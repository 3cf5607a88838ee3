"""What is particular to MariaDB and MySQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import URL, Connection, column, func, select, text

from flask_migrate_sidecar.process.identity import application_name

from .causes import STANDBY
from .dialect import Dialect, LockLimit, explain_by, to_milliseconds, whole
from .errors import UnusableError

# How each driver calls the limits on connecting, and whether it has limits on reading.
_CONNECTING: Final = {
    **dict.fromkeys(("pymysql", "mysqldb", "cymysql", "mariadbconnector"), "connect_timeout"),
    "mysqlconnector": "connection_timeout",
}
# PyMySQL's limit on connecting ends with TCP's handshake: MySQL's own is reading.
_READING: Final = ("pymysql", "mysqldb", "cymysql")
# `server_uid` is MariaDB's, `server_uuid` is MySQL's.
_IDENTITY: Final = (
    "SHOW GLOBAL VARIABLES WHERE Variable_name IN"
    " ('server_uid', 'server_uuid', 'hostname', 'port', 'datadir')"
)
# SHOW instead of @@: it passes over the variables that a server does not have.
_READ_ONLY: Final = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('read_only', 'innodb_read_only')"
# Not NOW(), which is the session's local time and repeats an hour in autumn.
_CLOCK: Final = "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) DIV 1000"
_WAITS_FOR: Final = "SELECT state FROM information_schema.processlist WHERE id = %d"
# MariaDB manual, "Information Schema INNODB_TRX Table", which needs the right PROCESS. The server
# does not say who holds a table's metadata lock: each other open transaction is one that may.
_BLOCKED_BY: Final = """
    SELECT t.trx_mysql_thread_id AS pid, p.user AS application, p.host AS client,
        p.command AS state, CAST(t.trx_started AS CHAR) AS since
    FROM information_schema.innodb_trx t
    JOIN information_schema.processlist w ON w.id = %d AND LOCATE('lock', w.state) > 0
    LEFT JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id
    WHERE t.trx_mysql_thread_id <> w.id
"""

_VERSION_TABLES: Final = """
    SELECT table_name FROM information_schema.columns WHERE table_schema = DATABASE()
    GROUP BY table_name HAVING count(*) = 1 AND max(column_name) = 'version_num' ORDER BY 1
"""


class MySQL(Dialect):
    """MariaDB and MySQL, whichever driver."""

    # Of metadata locks, in whole seconds, for the session, which remembers what it had.
    lock_limit = LockLimit(
        "SET @flask_migrate_had = COALESCE(@flask_migrate_had, @@SESSION.lock_wait_timeout),"
        " SESSION lock_wait_timeout = 1",
        "SET SESSION lock_wait_timeout = CAST(COALESCE(@flask_migrate_had,"
        " @@SESSION.lock_wait_timeout) AS UNSIGNED), @flask_migrate_had = NULL",
    )

    def arguments(self, url: URL, seconds: float, answer: float | None = None) -> dict[str, Any]:
        """Name the limits as the driver does; PyMySQL alone can tell the server who asks."""
        driver = url.get_driver_name()
        if driver not in _CONNECTING:
            return {}
        limits: dict[str, Any] = {_CONNECTING[driver]: whole(seconds)}
        if driver == "pymysql":
            limits["program_name"] = application_name()
        if answer is not None and driver in _READING:
            limits |= dict.fromkeys(("read_timeout", "write_timeout"), whole(answer))
        return limits

    def probe_options(self, url: URL) -> dict[str, Any]:
        """Ask in no transaction."""
        return {"isolation_level": "AUTOCOMMIT"}

    def version(self, connection: Connection) -> str:
        """Tell the two servers apart, which the protocol does not."""
        found = str(connection.exec_driver_sql("SELECT VERSION()").scalar())
        number, _, rest = found.partition("-")
        return f"{'MariaDB' if 'mariadb' in rest.lower() else 'MySQL'} {number}"

    def require_writes(self, connection: Connection) -> None:
        """Want a server that is not read_only, whoever we are.

        A user with READ_ONLY ADMIN (SUPER) could write on a replica, which would part it from its
        primary.
        """
        rows = connection.exec_driver_sql(_READ_ONLY)
        on = sorted(name for name, value in rows if str(value).upper() not in ("OFF", "0"))
        if on:
            raise UnusableError(STANDBY, f"the server only reads: {', '.join(on)}")

    def identify(self, connection: Connection) -> tuple[str, ...]:
        """Ask the server: URLs of one database can differ in every part."""
        rows = connection.exec_driver_sql(_IDENTITY).all()
        database = connection.exec_driver_sql("SELECT DATABASE()").scalar()
        return ("mysql", str(database), *sorted(f"{name}={value}" for name, value in rows))

    def find_version_tables(self, connection: Connection) -> Sequence[str]:
        """Look in the session's database."""
        return connection.exec_driver_sql(_VERSION_TABLES).scalars().all()

    def find_schema(self, connection: Connection) -> str | None:
        """Ask for the session's default database: MariaDB and MySQL call a schema that."""
        schema: str | None = connection.exec_driver_sql("SELECT DATABASE()").scalar()
        return schema

    def read_clock(self, connection: Connection) -> int:
        """Read the time in UTC."""
        return to_milliseconds(connection.exec_driver_sql(_CLOCK).scalar_one())

    def identify_session(self, driver: Any) -> int | None:
        """Give the connection id, which the server told at login."""
        return int(driver.thread_id()) if hasattr(driver, "thread_id") else None

    def is_at_work(self, connection: Connection, session: int) -> bool:
        """Look among the sessions, of which each user sees their own."""
        found = select(func.count()).select_from(text("information_schema.processlist"))
        works = column("id") == session, column("command") != "Sleep"
        return bool(connection.scalar(found.where(*works)))

    def explain_wait(self, connection: Connection, session: int) -> dict[str, Any]:
        """Ask for the session's state, and for the open transactions beside it."""
        return explain_by(connection, session, _WAITS_FOR, _BLOCKED_BY)

    def cancel(self, connection: Connection, session: int | None) -> None:
        """Kill the statement on a connection of its own: the drivers have no call for it."""
        if session is None:  # the adapter of an asynchronous driver
            return
        fresh = connection.engine.pool.recreate().connect()
        try:
            fresh.cursor().execute(f"KILL QUERY {session}")
        finally:
            fresh.close()


DIALECT: Final = MySQL()
