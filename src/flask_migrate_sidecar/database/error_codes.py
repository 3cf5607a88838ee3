"""What the codes and texts of databases mean: a new error is a row in one of these tables.

    STATES         SQLSTATEs, of PostgreSQL
    NUMBERS        error numbers of MariaDB and MySQL
    RESULTS        result codes of SQLite; SQLITE_TEXTS where one code stands for many errors
    ANSWERS        what comes as a text alone

`errors` looks them up.
"""

from __future__ import annotations

from typing import Final

from .causes import (
    ACCOUNT_HOST,
    ARGUMENTS,
    BLOCKED_HOST,
    BUSY,
    CANCELLED,
    DATABASE,
    DEADLOCK,
    EXISTS,
    EXPIRED,
    FULL,
    GONE,
    HOST,
    IDLE,
    LOCK_TIMEOUT,
    LOGIN,
    LOST,
    NEW_ENUM_VALUE,
    NO_DATABASE_FILE,
    NO_OBJECT,
    NO_SPACE,
    PLACE,
    POOLED,
    RIGHTS,
    STANDBY,
    STARTING,
    TLS,
    TLS_OR_LOGIN,
    TOO_LONG,
)

# PostgreSQL manual, appendix A; a class (two characters) or a whole state.
STATES: Final = {
    "08": LOST,
    "57P01": LOST,
    "57P02": LOST,
    "57P03": LOST,
    "25006": STANDBY,
    "53300": FULL,
    "28": LOGIN,
    "3D": DATABASE,
    "42501": RIGHTS,
    "55P03": LOCK_TIMEOUT,
    "40001": DEADLOCK,
    "40P01": DEADLOCK,
    **dict.fromkeys(("42P07", "42701", "42710"), EXISTS),
    **dict.fromkeys(("42P01", "42703", "3F000"), NO_OBJECT),
    "57014": CANCELLED,
    **dict.fromkeys(("25P03", "25P04"), IDLE),
    "53100": NO_SPACE,
    **dict.fromkeys(("26000", "42P05"), POOLED),
    "22001": TOO_LONG,
    "55P04": NEW_ENUM_VALUE,
}
# "running with the --read-only option", but also with any other that forbids the statement.
OPTION_PREVENTS: Final = 1290
# https://mariadb.com/kb/en/mariadb-error-codes/, MySQL manual B.3.
NUMBERS: Final = {
    **dict.fromkeys((2002, 2003, 2005), STARTING),
    **dict.fromkeys((2006, 2013, 2055, 1053, 1927, 4031), LOST),
    **dict.fromkeys((1040, 1203, 1226), FULL),
    **dict.fromkeys((OPTION_PREVENTS, 1792, 1836), STANDBY),
    # MariaDB answers 1045 as well where it demands TLS (require_secure_transport).
    1045: TLS_OR_LOGIN,
    **dict.fromkeys((1698, 1251, 1275, 2049, 2054, 2058, 2059, 2061), LOGIN),
    **dict.fromkeys((1820, 1862, 3118, 4151), EXPIRED),
    # Access denied to: database, table, column, a privileged statement, a routine.
    **dict.fromkeys((1044, 1142, 1143, 1227, 1370), RIGHTS),
    **dict.fromkeys((1049, 1102), DATABASE),
    1130: ACCOUNT_HOST,
    1129: BLOCKED_HOST,
    **dict.fromkeys((2026, 3159), TLS),
    1205: LOCK_TIMEOUT,
    # innodb_snapshot_isolation, which MariaDB has on since 11.6.2, answers 1020 as 1213.
    **dict.fromkeys((1213, 1020), DEADLOCK),
    **dict.fromkeys((1050, 1060, 1061), EXISTS),
    # Unknown table, unknown column; nothing to drop; a second primary key.
    **dict.fromkeys((1146, 1054, 1051, 1091, 1068), GONE),
    # max_statement_time of MariaDB, max_execution_time of MySQL, KILL QUERY.
    **dict.fromkeys((1969, 3024, 1317), CANCELLED),
    # Disk full, table full, "No space left on device" behind the engine or a file.
    **dict.fromkeys((1021, 1114), NO_SPACE),
    1406: TOO_LONG,
}
# Result codes of SQLite by their names (https://www.sqlite.org/rescode.html), extended ones too.
RESULTS: Final = {
    **dict.fromkeys(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM", "SQLITE_AUTH"), PLACE),
    "SQLITE_NOTADB": NO_DATABASE_FILE,
    # SQLITE_LOCKED alone is a conflict of a connection with itself, which no waiting resolves.
    **dict.fromkeys(("SQLITE_BUSY", "SQLITE_LOCKED_SHAREDCACHE"), BUSY),
}
# What has no code. The answers of a PostgreSQL server that say "later" come first: they win over
# a refusal of another host. Names stand in double quotes and are emptied before the comparison.
# Server: src/backend/{libpq/auth.c,utils/init/postinit.c,libpq/hba.c}; client: libpq/fe-*.c.
ANSWERS: Final = (
    (r"due to (idle-in-transaction|transaction) timeout", IDLE),
    (r"the database system is (starting up|shutting down|in recovery mode)", STARTING),
    (r"the database system is not (yet )?accepting connections", STANDBY),
    (r"too many (clients|connections)|connection slots are reserved", FULL),
    (r"session is (not )?read-only|server is (not )?in hot standby mode", STANDBY),
    (r"authentication failed|no password supplied|no such user", LOGIN),
    (r'role "" (does not exist|is not permitted to log in)', LOGIN),
    (r"authentication method .* (failed|not (supported|allowed|met))", LOGIN),
    (r'database "" does not exist|no such database', DATABASE),
    (r'database "" is not currently accepting connections', DATABASE),
    (r"permission denied for database", RIGHTS),
    (r"pg_hba\.conf", HOST),
    (r"does not support SSL|SSL (is )?required|certificate|private key|channel binding", TLS),
    (r"SSL error: (?!.*(EOF|reset|closed))|GSSAPI.*(required|not support)", TLS),
    (r"invalid (connection option|dsn|\w+ value|integer value)|bad value for", ARGUMENTS),
    (r"unsupported startup parameter|unsupported frontend protocol", ARGUMENTS),
    (r"server closed the connection|connection (is (lost|closed)|already closed)", LOST),
    (r"could not receive data from server|SSL SYSCALL error|consuming input failed", LOST),
    # Last, for another address of the same name may have had an answer.
    (r"connection (to server|failed|is bad|timeout)|could not connect to server", STARTING),
    (r"could not translate host name|failed to resolve host", STARTING),
)
# Of SQLite, whose result code for a faulty statement is one for all.
SQLITE_TEXTS: Final = (
    (r"no such (table|column|index)|has no column named", GONE),
    (r"database or disk is full", NO_SPACE),
    (r"already exists|duplicate column name", EXISTS),
)
