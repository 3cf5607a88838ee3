"""What can be wrong with a database, what to do about it, and whether another try can help."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final


class Verdict(enum.Enum):
    """What to do about an error."""

    NOT_READY = "not ready"  # waiting can help
    REFUSED = "refused"  # understood, and answered with no
    LOCKED = "locked"  # somebody else holds what is needed
    TRANSIENT = "transient"  # it was cut short, and another try may pass
    MISFIT = "misfit"  # what the driver needs is not here: no server was asked
    FAILED = "failed"  # it is wrong, and will be at the next try


# Two that have the same words for it are not the same thing.
@dataclass(frozen=True, eq=False)
class Cause:
    """One thing that can be wrong.

    Args:
        hint: what to do where it keeps us from connecting.
        login: the verdict there, and while a lock is taken.
        revision: the verdict while a revision runs; the same where nothing else is said.
        advice: what to do then; the same where nothing else is said.
    """

    hint: str
    login: Verdict
    revision: Verdict
    advice: str


def _cause(
    hint: str, login: Verdict, revision: Verdict | None = None, advice: str | None = None
) -> Cause:
    return Cause(hint, login, revision or login, advice or hint)


_WAIT: Final = "check that the server runs and that host and port are right; or wait longer"
_MEND: Final = "the statement is in the traceback; mend the revision, or what the database holds"
_REVOKED: Final = "grant the role what the migration needs, or use --database-url with another one"
_HELD: Final = "another session holds the table or the file; run again when it is done"

# Waiting can help.
STARTING: Final = _cause(_WAIT, Verdict.NOT_READY)
FULL: Final = _cause(
    "free connections, or raise the limit of the server, role or database; a run needs two for "
    "each database, one of them for its lock",
    Verdict.NOT_READY,
)
STANDBY: Final = _cause(
    "point the URL at the primary server, or wait until this one is promoted",
    Verdict.NOT_READY,
    advice="point the URL at the primary server; or default_transaction_read_only is on for the "
    "role, the database or the server (MariaDB: read_only, tx_read_only): turn it off",
)
LOST: Final = _cause(
    _WAIT,
    Verdict.NOT_READY,
    Verdict.TRANSIENT,
    "what was committed stays; run again; lost at the same place each time, it is a timeout of the "
    "server's, or of what lies between",
)
# The server, or the driver, understood and says no.
LOGIN: Final = _cause(
    "check user and password, and the secret that they come from", Verdict.REFUSED
)
EXPIRED: Final = _cause("renew the user's password, or unlock the account", Verdict.REFUSED)
DATABASE: Final = _cause(
    "create the database, or correct its name in the URL; a line break (\\n) belongs to it where a "
    "secret was made with echo",
    Verdict.REFUSED,
)
HOST: Final = _cause(
    "let this host, user and database in: pg_hba.conf, or the provider's access rules",
    Verdict.REFUSED,
)
ACCOUNT_HOST: Final = _cause(
    "let this host in: CREATE USER 'user'@'host', or the provider's access rules", Verdict.REFUSED
)
BLOCKED_HOST: Final = _cause("unblock this host on the server: FLUSH HOSTS", Verdict.REFUSED)
TLS: Final = _cause(
    "check the server's TLS, and what the URL asks of it (sslmode, certificates)", Verdict.REFUSED
)
TLS_OR_LOGIN: Final = _cause(
    f"{LOGIN.hint}; or connect with TLS, if the server demands it", Verdict.REFUSED
)
RIGHTS: Final = _cause(
    "grant the user the right to connect to this database, or correct its name in the URL: a line "
    "break (\\n) belongs to it where a secret was made with echo",
    Verdict.REFUSED,
    advice=_REVOKED,
)
ARGUMENTS: Final = _cause(
    "correct the arguments of the URL, or the application's connect_args", Verdict.REFUSED
)
# Nobody was asked yet.
NO_FILE: Final = _cause(
    "a file that the URL or the application's connect_args name for TLS cannot be read: check what "
    "is mounted, and its rights",
    Verdict.MISFIT,
)
NO_PACKAGE: Final = _cause(
    "install what the driver asks for, pip install 'PyMySQL[rsa]', or add it with --site-packages",
    Verdict.MISFIT,
)
PLACE: Final = _cause(
    "let this user read and write the file and its folder",
    Verdict.REFUSED,
    advice="the SQLite file and its folder must be writable for this user: check the volume",
)
NO_DATABASE_FILE: Final = _cause(
    "the file is no SQLite database, or an encrypted one", Verdict.REFUSED
)
# Somebody else is in the way.
BUSY: Final = _cause(
    "find the process that holds the file locked; or wait longer",
    Verdict.NOT_READY,
    Verdict.LOCKED,
    _HELD,
)
LOCK_TIMEOUT: Final = _cause(_WAIT, Verdict.NOT_READY, Verdict.LOCKED, _HELD)
DEADLOCK: Final = _cause(
    _WAIT, Verdict.NOT_READY, Verdict.LOCKED, "another session was in the way; run again"
)
# The statement, and what the database holds, do not fit.
EXISTS: Final = _cause(
    _WAIT,
    Verdict.NOT_READY,
    Verdict.FAILED,
    "the object is there already: an earlier attempt stopped midway (databases without "
    "transactional DDL keep its first statements), or the application runs db.create_all(); "
    "remove the object, or 'stamp' the revision if all of it is there",
)
NO_OBJECT: Final = _cause(_WAIT, Verdict.NOT_READY, Verdict.FAILED, _MEND)
# The same where DDL commits by itself: half of the revision may have run already.
GONE: Final = _cause(
    _WAIT,
    Verdict.NOT_READY,
    Verdict.FAILED,
    "what the statement speaks of is not there: an earlier attempt stopped midway (databases "
    "without transactional DDL keep its first statements), or the revision is wrong; compare what "
    "is there with the revision, then undo its first statements by hand, or do the rest and "
    "'stamp' it",
)
# An application that is imported lacks a table or column, which a migration may be about to make.
LACKING: Final = frozenset({NO_OBJECT, GONE})
CANCELLED: Final = _cause(
    _WAIT,
    Verdict.NOT_READY,
    Verdict.FAILED,
    "the server ended the statement: statement_timeout of the role or database (0 for the role "
    "that migrates: ALTER ROLE ... SET statement_timeout = 0; MariaDB: max_statement_time), or "
    "somebody cancelled it",
)
IDLE: Final = _cause(
    _WAIT,
    Verdict.NOT_READY,
    Verdict.FAILED,
    "the server ended the session, whose transaction was idle or open for too long: 0 for the role "
    "that migrates (ALTER ROLE ... SET idle_in_transaction_session_timeout = 0, "
    "transaction_timeout), or let the revision do less between two statements",
)
NO_SPACE: Final = _cause(
    "make room for the server's disk: it is full",
    Verdict.NOT_READY,
    Verdict.FAILED,
    "the server's disk, or the table's, is full: make room and run again",
)
POOLED: Final = _cause(
    _WAIT,
    Verdict.NOT_READY,
    Verdict.FAILED,
    "a pooler in transaction mode lost a prepared statement: migrate past the pooler with "
    "--database-url, or give the engine connect_args={'prepare_threshold': None} (psycopg 3)",
)
TOO_LONG: Final = _cause(
    _WAIT,
    Verdict.NOT_READY,
    Verdict.FAILED,
    "a text is longer than its column; where it is the revision's id, shorten the id, or widen "
    "the column: ALTER TABLE alembic_version ALTER COLUMN version_num TYPE VARCHAR(255) "
    "(MariaDB: MODIFY version_num VARCHAR(255) NOT NULL)",
)
NEW_ENUM_VALUE: Final = _cause(
    _WAIT,
    Verdict.NOT_READY,
    Verdict.FAILED,
    "PostgreSQL wants the new value of an enum committed before it is used: add it in "
    "'with op.get_context().autocommit_block():', or use it in a later revision and set "
    "transaction_per_migration=True",
)
UNKNOWN: Final = _cause(_WAIT, Verdict.NOT_READY, Verdict.FAILED, _MEND)
