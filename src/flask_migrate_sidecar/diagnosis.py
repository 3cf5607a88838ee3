"""What a failed connection means: is it worth waiting, and what should a person do.

A PostgreSQL driver learns no SQLSTATE from a login that failed, only the server's text, so logins
are told apart by a table of texts, which the tests hold against real servers. MariaDB and MySQL
send an error number, SQLite has result codes, and a query that fails carries its SQLSTATE.
What no table knows (a server that speaks another language, a pooler's own words) is waited for.
"""

from __future__ import annotations

import enum
import re
import sqlite3
from collections.abc import Iterator
from typing import Final, NamedTuple

from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError

from .databases import DEFAULT, hosts_and_ports, is_memory, secrets, sqlite_path
from .errors import RefusedError, UnavailableError


class Verdict(enum.Enum):
    """Whether waiting can help."""

    NOT_READY = "not ready"
    REFUSED = "refused"


class Diagnosis(NamedTuple):
    """What a failure means.

    Args:
        verdict: whether waiting can help.
        reason: what happened, on one line, without a secret.
        hint: what to do about it.
    """

    verdict: Verdict
    reason: str
    hint: str

    @property
    def is_silence(self) -> bool:
        """Tell whether the server said nothing at all, in our words or a driver's."""
        return bool(_SILENCE.search(self.reason))


class UnusableError(Exception):
    """A probe found what no driver reports as an error: a standby, a folder that is missing."""

    def __init__(self, verdict: Verdict, reason: str, hint: str) -> None:
        super().__init__(reason)
        self.diagnosis = Diagnosis(verdict, reason, hint)


_LOGIN: Final = "check user and password, and the secret that they come from"
_DATABASE: Final = "create the database, or correct its name in the URL"
_TLS: Final = "check the server's TLS, and what the URL asks of it (sslmode, certificates)"
_HBA: Final = "let this host, user and database in: pg_hba.conf, or the provider's access rules"
_RIGHTS: Final = "grant the user the right to connect to this database"
_ARGUMENTS: Final = "correct the arguments of the URL, or the application's connect_args"
_WAIT: Final = "check that the server runs and that host and port are right; or wait longer"
PRIMARY: Final = "point the URL at the primary server, or wait until this one is promoted"
_FULL: Final = "free connections, or raise the limit of the server, role or database"

# Answers of a PostgreSQL server that say: later. They win over a refusal of another host.
_LATER: Final = (
    (r"the database system is (starting up|shutting down|in recovery mode)", _WAIT),
    (r"the database system is not (yet )?accepting connections", PRIMARY),
    (r"too many (clients|connections)|connection slots are reserved", _FULL),
    (r"session is (not )?read-only|server is (not )?in hot standby mode", PRIMARY),
)
# Answers that say: no. Names stand in double quotes and are emptied before the comparison.
# Server: src/backend/{libpq/auth.c,utils/init/postinit.c,libpq/hba.c}; client: libpq/fe-*.c.
_NEVER: Final = (
    (r"authentication failed|no password supplied|no such user", _LOGIN),
    (r'role "" (does not exist|is not permitted to log in)', _LOGIN),
    (r"authentication method .* (failed|not (supported|allowed|met))", _LOGIN),
    (r'database "" does not exist|no such database', _DATABASE),
    (r'database "" is not currently accepting connections', _DATABASE),
    (r"permission denied for database", _RIGHTS),
    (r"pg_hba\.conf", _HBA),
    (r"does not support SSL|SSL (is )?required|certificate|private key|channel binding", _TLS),
    (r"SSL error: (?!.*(EOF|reset|closed))|GSSAPI.*(required|not support)", _TLS),
    (r"invalid (connection option|dsn|\w+ value|integer value)|bad value for", _ARGUMENTS),
    (r"unsupported startup parameter|unsupported frontend protocol", _ARGUMENTS),
)
# https://mariadb.com/kb/en/mariadb-error-codes/, MySQL manual B.3.
_MYSQL_NEVER: Final = {
    # MariaDB answers 1045 as well where it demands TLS (require_secure_transport).
    1045: f"{_LOGIN}; or connect with TLS, if the server demands it",
    **dict.fromkeys((1698, 1251, 1275, 2049, 2054, 2058, 2059, 2061), _LOGIN),
    **dict.fromkeys((1820, 1862, 3118, 4151), "renew the user's password, or unlock the account"),
    **dict.fromkeys((1044, 1142, 1227), _RIGHTS),
    1049: _DATABASE,
    1130: "let this host in: CREATE USER 'user'@'host', or the provider's access rules",
    1129: "unblock this host on the server: FLUSH HOSTS",
    **dict.fromkeys((2026, 3159), _TLS),
}
_MYSQL_FULL: Final = frozenset({1040, 1203, 1226})
_MYSQL_LOST: Final = frozenset({2006, 2013, 2055, 1053, 1927, 4031})
_SQLITE_NEVER: Final = ("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM", "SQLITE_AUTH")
# PostgreSQL manual, appendix A: authorisation, catalog name, insufficient privilege.
_SQLSTATE_NEVER: Final = {"28": _LOGIN, "3D": _DATABASE, "42501": _RIGHTS}
_SQLSTATE_LOST: Final = ("08", "57P01", "57P02", "57P03")
_LOST_TEXT: Final = re.compile(
    r"server closed the connection|connection is lost|connection already closed"
    r"|could not receive data from server|SSL SYSCALL error|consuming input failed"
)
_SILENCE: Final = re.compile(r"no answer within|timeout expired|timed out")
_LONGEST_REASON: Final = 300


def classify(error: BaseException, url: URL) -> tuple[Verdict, str]:
    """Tell whether waiting can help, and why.

    Args:
        error: what a driver or SQLAlchemy raised, or an error that was raised from it.
        url: where it happened; its passwords are taken out of the reason.
    """
    verdict, reason, _ = diagnose(error, url)
    return verdict, reason


def diagnose(error: BaseException, url: URL) -> Diagnosis:
    """Tell whether waiting can help, why, and what to do.

    Args:
        error: what a driver or SQLAlchemy raised, or an error that was raised from it.
        url: where it happened; its passwords are taken out of the reason.
    """
    error = _root(error)
    if isinstance(error, UnusableError):
        return error.diagnosis
    verdict, hint = _judge(error, url)
    return Diagnosis(verdict, _reason(error, url), hint)


def is_disconnect(error: BaseException) -> bool:
    """Tell whether a connection was lost: then nothing is known of what the server did last.

    Args:
        error: any exception; those that it was raised from count too.
    """
    return any(_is_lost(link) for link in _chain(error))


def explain_connection_error(
    error: BaseException, url: URL, *, database: str = DEFAULT
) -> UnavailableError | RefusedError:
    """Make the error that ends the run from one that a driver raised.

    Args:
        error: what a driver or SQLAlchemy raised.
        url: where it happened.
        database: name of the database.
    """
    return verdict_error(diagnose(error, url), url, database)


def verdict_error(
    found: Diagnosis, url: URL, database: str, **fields: object
) -> UnavailableError | RefusedError:
    """Make the error that ends the run; its message names database, place and reason."""
    kind = RefusedError if found.verdict is Verdict.REFUSED else UnavailableError
    said = "refuses" if found.verdict is Verdict.REFUSED else "is not available"
    return kind(
        f"database {database!r} at {place(url)} {said}: {found.reason}",
        hint=found.hint,
        database=database,
        reason=found.reason,
        **fields,
    )


def place(url: URL) -> str:
    """Name the server or file of a URL as a person would look for it."""
    if url.get_backend_name() == "sqlite":
        return ":memory:" if is_memory(url) else str(sqlite_path(url))
    sockets = url.query.get("unix_socket")
    if sockets:
        return str(sockets)
    pairs = hosts_and_ports(url)
    named = [f"{host or 'localhost'}{f':{port}' if port else ''}" for host, port in pairs]
    return ",".join(named)


def _judge(error: BaseException, url: URL) -> tuple[Verdict, str]:
    """Ask the table that fits what the error carries."""
    state = _sqlstate(error)
    number = _number(error)
    if isinstance(error, TypeError):
        return Verdict.REFUSED, _ARGUMENTS  # the driver takes no such argument
    if isinstance(error, sqlite3.Error):
        return _judge_sqlite(error)
    if number is not None and url.get_backend_name() in ("mysql", "mariadb"):
        hint = _MYSQL_NEVER.get(number)
        waits = _FULL if number in _MYSQL_FULL else _WAIT
        return (Verdict.REFUSED, hint) if hint else (Verdict.NOT_READY, waits)
    for prefix, hint in _SQLSTATE_NEVER.items():
        if state.startswith(prefix):
            return Verdict.REFUSED, hint
    return _judge_text(str(error))


def _judge_text(text: str) -> tuple[Verdict, str]:
    text = re.sub(r'"[^"\n]*"', '""', text)
    for verdict, table in ((Verdict.NOT_READY, _LATER), (Verdict.REFUSED, _NEVER)):
        for pattern, hint in table:
            if re.search(pattern, text):
                return verdict, hint
    return Verdict.NOT_READY, _WAIT


def _judge_sqlite(error: sqlite3.Error) -> tuple[Verdict, str]:
    name = getattr(error, "sqlite_errorname", None) or ""
    if name.startswith(_SQLITE_NEVER):
        return Verdict.REFUSED, "let this user read and write the file and its folder"
    if name == "SQLITE_NOTADB":
        return Verdict.REFUSED, "the file is no SQLite database, or an encrypted one"
    return Verdict.NOT_READY, "find the process that holds the file locked; or wait longer"


def _reason(error: BaseException, url: URL) -> str:
    text = str(error.args[1] if _number(error) is not None else error)
    number = _number(error)
    # libpq puts where and how it tried before what the server said; the server's words suffice.
    said = re.findall(r"(?:FATAL|ERROR|PANIC): +(.*)", text) or [
        re.sub(r"^(connection (failed|is bad|to server .*? failed): )+", "", line)
        for line in text.splitlines()[:1]
    ]
    reason = said[-1].strip() if said and said[-1].strip() else type(error).__name__
    for secret in sorted(secrets(url), key=len, reverse=True):
        reason = reason.replace(secret, "***")
    return f"{reason[:_LONGEST_REASON]}{f' ({number})' if number is not None else ''}"


def _is_lost(error: BaseException) -> bool:
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    if _sqlstate(error).startswith(_SQLSTATE_LOST) or _number(error) in _MYSQL_LOST:
        return True
    by_client = _is_driver_error(error) and not _sqlstate(error)
    return by_client and bool(_LOST_TEXT.search(str(error)))


def _root(error: BaseException) -> BaseException:
    """Find what the driver raised under what SQLAlchemy and the application made of it."""
    links = list(_chain(error))
    found = [e for e in links if isinstance(e, UnusableError) or _is_driver_error(e)]
    return (found or links)[0]


def _is_driver_error(error: BaseException) -> bool:
    """Tell a driver's exception by its family (PEP 249): no driver need be installed."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return not isinstance(error, DBAPIError) and bool(
        names & {"OperationalError", "InterfaceError", "DatabaseError"}
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Follow an exception to those that it was raised from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        wrapped = error.orig if isinstance(error, DBAPIError) else None
        error = wrapped or error.__cause__ or error.__context__


def _sqlstate(error: BaseException) -> str:
    # psycopg 3 says sqlstate, psycopg2 pgcode; PyMySQL's is less telling than its number.
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return state if isinstance(state, str) and _number(error) is None else ""


def _number(error: BaseException) -> int | None:
    """Give the error number of MariaDB and MySQL: their drivers put it first."""
    if not _is_driver_error(error) or len(error.args) < 2:  # noqa: PLR2004
        return None
    return error.args[0] if isinstance(error.args[0], int) else None
