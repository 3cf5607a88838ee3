"""The one classifier: what a driver's exception means, why, and what a person should do.

    cause        of an exception: `find_cause` looks it up by SQLSTATE, by MariaDB's and MySQL's
                 number, by SQLite's result code or, where a driver has none of them, by text
    verdict      of a cause at a moment: not ready, refused, locked, transient or failed

A PostgreSQL driver learns no SQLSTATE from a login that failed, only the server's text, so logins
are told apart by a table of texts, which the tests hold against real servers. What no table knows
(a server that speaks another language, a pooler's own words) is waited for at a login, and counts
as a failure in a revision.

A new error is a row in one of the tables: `STATES` of PostgreSQL, `NUMBERS` of MariaDB and MySQL,
`RESULTS` and `SQLITE_TEXTS` of SQLite, `ANSWERS` for what comes as a text alone. Nothing else in
the code base reads an SQLSTATE, a number or a driver's text.
"""

from __future__ import annotations

import enum
import errno
import re
import sqlite3
from collections.abc import Iterator
from typing import Final, NamedTuple

from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError

from flask_migrate_sidecar.errors import (
    ConfigurationError,
    RefusedError,
    UnavailableError,
    chain,
    describe,
    passed_through,
)
from flask_migrate_sidecar.log.redaction import Secrets, find_secrets, secrets

from .causes import ARGUMENTS, IDLE, LACKING, LOST, NO_FILE, NO_PACKAGE, UNKNOWN, Cause, Verdict
from .error_codes import ANSWERS, NUMBERS, OPTION_PREVENTS, RESULTS, SQLITE_TEXTS, STATES
from .url import place


class Moment(enum.Enum):
    """What was being done; the same error means another thing at another moment."""

    LOGIN = "login"
    LOCK = "lock"
    IMPORT = "import"
    REVISION = "revision"


_DRIVER_FAMILIES: Final = frozenset({"OperationalError", "InterfaceError", "DatabaseError"})
# The families of PEP 249 whose errors come and go, and those that no waiting mends.
_PASSING: Final = frozenset({"OperationalError", "InterfaceError"})
_LASTING: Final = frozenset(
    {"ProgrammingError", "IntegrityError", "DataError", "NotSupportedError"}
)
_ATTEMPT: Final = re.compile(r'connection to server at (?P<place>"[^"]*"(?: \([^)]*\))?, port \d+)')
_SILENCE: Final = re.compile(r"no answer within|timeout expired|timed out")
_LONGEST_REASON: Final = 300
# How the end of a wait is told.
_ENDS: Final[dict[Verdict, tuple[type[RefusedError | ConfigurationError], str]]] = {
    Verdict.REFUSED: (RefusedError, "refuses"),
    Verdict.MISFIT: (ConfigurationError, "cannot be asked"),
}


class Diagnosis(NamedTuple):
    """What a failure means.

    Args:
        cause: what is wrong.
        verdict: what to do about it.
        reason: what happened, on one line, without a secret.
        hint: what a person should do.
        is_lasting: no waiting mends it, whatever the verdict.
    """

    cause: Cause
    verdict: Verdict
    reason: str
    hint: str
    is_lasting: bool = False

    @property
    def is_silence(self) -> bool:
        """Tell whether the server said nothing at all, in our words or a driver's."""
        return bool(_SILENCE.search(self.reason))


class UnusableError(Exception):
    """A probe found what no driver reports as an error: a standby, a folder that is missing.

    Args:
        cause: what is wrong.
        reason: what was found.
        hint: what to do, where it is not what the cause says.
    """

    def __init__(self, cause: Cause, reason: str, *, hint: str | None = None) -> None:
        super().__init__(reason)
        self.diagnosis = Diagnosis(cause, cause.login, reason, hint or cause.hint)


def diagnose(
    error: BaseException, url: URL | None = None, moment: Moment = Moment.LOGIN
) -> Diagnosis:
    """Tell what an error means, why, and what to do.

    Args:
        error: what a driver or SQLAlchemy raised, or an error that was raised from it.
        url: where it happened, if that is known; its passwords are taken out of the reason.
        moment: what was being done.
    """
    is_lost = moment is Moment.REVISION and any(_is_lost(link) for link in chain(error))
    error = _root(error)
    if is_lost:
        # A server may say why it ended the session.
        cause = IDLE if find_cause(error) is IDLE else LOST
        return Diagnosis(cause, cause.revision, first_line(error), cause.advice)
    if isinstance(error, UnusableError):
        return error.diagnosis
    cause = find_cause(error)
    if moment is Moment.REVISION:
        # Text tells nothing of an error that no driver raised.
        cause = cause if _is_driver_error(error) else UNKNOWN
        return Diagnosis(cause, cause.revision, first_line(error), cause.advice)
    verdict, lasting = cause.login, bool(_families(error) & _LASTING)
    if moment is Moment.LOCK and cause.revision is Verdict.FAILED:
        # What a lock asks for is right, so an answer that does not pass is one to its rights.
        verdict = cause.login if _families(error) & _PASSING else Verdict.REFUSED
    if moment is Moment.IMPORT and cause in LACKING:
        verdict, lasting = Verdict.FAILED, True
    return Diagnosis(cause, verdict, _say(error, url), cause.hint, lasting)


def find_cause(error: BaseException) -> Cause:
    """Look up what is wrong by the code that a driver's exception carries, else by its text."""
    ours = find_misfit(error)
    if ours is not None:
        return ours
    if isinstance(error, sqlite3.Error):
        return _find_result(error)
    number = _number(error)
    if number == OPTION_PREVENTS and "read-only" not in str(error):
        return UNKNOWN
    if number is not None:
        return NUMBERS.get(number, UNKNOWN)
    state = _sqlstate(error)
    found = STATES.get(state) or STATES.get(state[:2])
    return found or (UNKNOWN if state else _match_attempts(str(error))[0])


def find_misfit(error: BaseException) -> Cause | None:
    """Tell what a driver raises before it asks a server."""
    if isinstance(error, TypeError):
        return ARGUMENTS  # the driver takes no such argument
    if isinstance(error, (FileNotFoundError, PermissionError)) and passed_through(error, "ssl"):
        return NO_FILE
    if isinstance(error, RuntimeError) and "package is required" in describe(error):
        return NO_PACKAGE
    return None


def is_limit_of_process(error: BaseException) -> bool:
    """Tell whether the process may have no more files or memory: nothing else is to blame."""
    if isinstance(error, OSError):
        return error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
    return isinstance(error, MemoryError)


def find_driver_error(error: BaseException) -> BaseException | None:
    """Find the error of a database in what it led to: applications raise errors of their own."""
    for link in chain(error):
        if isinstance(link, DBAPIError) and link.orig is not None:
            return link.orig
        if _is_driver_error(link):
            return link
    return None


def make_error(
    found: Diagnosis, url: URL, database: str, **fields: object
) -> UnavailableError | RefusedError | ConfigurationError:
    """Make the error that ends the run; its message names database, place and reason."""
    kind, said = _ENDS.get(found.verdict, (UnavailableError, "is not available"))
    return kind(
        f"database {database!r} at {place(url)} {said}: {found.reason}",
        hint=found.hint,
        database=database,
        reason=found.reason,
        **fields,
    )


def _find_result(error: sqlite3.Error) -> Cause:
    name = getattr(error, "sqlite_errorname", None) or ""
    for result, cause in RESULTS.items():
        if name.startswith(result):
            return cause
    return _match(str(error), SQLITE_TEXTS)


def _match_attempts(text: str) -> tuple[Cause, str]:
    """Find the cause in what libpq says of its attempts, and the attempt that it is of.

    With sslmode=prefer it tries the same place again in another way, and what that ends with is
    seldom what is wrong: of each place the first answer counts (manual, 34.1.2, sslmode). Of
    several places the one whose cause stands first in the table.
    """
    attempts = list(_split_attempts(text))
    for pattern, cause in ANSWERS:
        for attempt in attempts:
            if re.search(pattern, _without_names(attempt)):
                return cause, attempt
    return UNKNOWN, attempts[0]


def _split_attempts(text: str) -> Iterator[str]:
    """Cut the text where each attempt begins, and leave out the further ones at one place."""
    starts = list(_ATTEMPT.finditer(text))
    if not starts:
        yield text
        return
    seen: set[str] = set()
    for found, following in zip(starts, [*starts[1:], None], strict=True):
        if found["place"] not in seen:
            seen.add(found["place"])
            yield text[found.start() : following.start() if following else len(text)]


def _without_names(text: str) -> str:
    return re.sub(r'"[^"]*"', '""', text)


def _match(text: str, table: tuple[tuple[str, Cause], ...]) -> Cause:
    text = _without_names(text)
    return next((cause for pattern, cause in table if re.search(pattern, text)), UNKNOWN)


def _say(error: BaseException, url: URL | None) -> str:
    """Give the server's own words, without the passwords of the URL."""
    number = _number(error)
    text = str(error.args[1]) if number is not None else _match_attempts(str(error))[1]
    # A line break in a name, which is what is wrong with it.
    text = re.sub(r"""(?<=["'])[^"'\n]*\n(?=["'])""", lambda name: repr(name[0])[1:-1], text)
    # libpq puts where and how it tried before what the server said; the server's words suffice.
    said = re.findall(r"(?:FATAL|ERROR|PANIC): +(.*)", text) or [
        re.sub(r"^(connection (failed|is bad|to server .*? failed): )+", "", line)
        for line in text.splitlines()[:1]
    ]
    reason = said[-1].strip() if said and said[-1].strip() else type(error).__name__
    # Before it is cut, for half a secret is none that could be found.
    reason = secrets.hide(Secrets(find_secrets(url) if url else ()).hide(reason))[:_LONGEST_REASON]
    return f"{reason} ({number})" if number is not None else reason


def first_line(error: BaseException) -> str:
    """Give the beginning of an error's text, without the statement that SQLAlchemy adds."""
    return (describe(error).strip().splitlines() or [""])[0]


def _is_lost(error: BaseException) -> bool:
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    return _is_driver_error(error) and find_cause(error) is LOST


def _root(error: BaseException) -> BaseException:
    """Find what the driver raised under what SQLAlchemy and the application made of it."""
    links = list(chain(error))
    found = [e for e in links if isinstance(e, UnusableError) or _is_driver_error(e)]
    return (found or links)[0]


def _families(error: BaseException) -> set[str]:
    """Give the names of an exception's classes: no driver need be installed (PEP 249)."""
    return {kind.__name__ for kind in type(error).__mro__}


def _is_driver_error(error: BaseException) -> bool:
    return not isinstance(error, DBAPIError) and bool(_families(error) & _DRIVER_FAMILIES)


def _sqlstate(error: BaseException) -> str:
    """Give the SQLSTATE: psycopg 3 calls it sqlstate, psycopg2 pgcode."""
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return state if isinstance(state, str) else ""


def _number(error: BaseException) -> int | None:
    """Give the error number of MariaDB and MySQL: their drivers put it first.

    PyMySQL 1.2 and later have an SQLSTATE beside it, which tells less.
    """
    if not _is_driver_error(error) or len(error.args) < 2:  # noqa: PLR2004
        return None
    return error.args[0] if isinstance(error.args[0], int) else None
