"""What a driver's error means while a revision runs, whichever driver raised it."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import psycopg
import pymysql
import pytest
from sqlalchemy.exc import DBAPIError, OperationalError

from flask_migrate_sidecar.application.migrations_only import MissingKeyError
from flask_migrate_sidecar.errors import (
    LockedError,
    MigrationError,
    RefusedError,
    SidecarError,
    UnavailableError,
)
from flask_migrate_sidecar.history.failure import explain

psycopg2 = pytest.importorskip("psycopg2")


def by_psycopg(state: str) -> Exception:
    """Make an error as psycopg 3 raises it."""
    return psycopg.errors.lookup(state)("nein")


def by_psycopg2(state: str) -> Exception:
    """Make an error as psycopg2 raises it."""
    kind = psycopg2.errors.lookup(state)
    error: Exception = type(kind.__name__, (kind,), {"pgcode": state})("nein")
    return error


def by_pymysql(number: int) -> Exception:
    """Make an error as PyMySQL raises it."""
    kind = pymysql.err.error_map.get(number, pymysql.err.OperationalError)
    error: Exception = kind(number, "nein")
    return error


def by_pymysql_with_state(number: int) -> Exception:
    """Make an error as PyMySQL 1.2 raises it, which has an SQLSTATE beside the number."""
    error = by_pymysql(number)
    error.sqlstate = "HY000"  # type: ignore[attr-defined]
    return error


def explain_wrapped(original: Exception) -> SidecarError:
    """Explain an error as SQLAlchemy hands it on."""
    return explain(OperationalError("ALTER TABLE t", {}, original))


@pytest.mark.parametrize("make", [by_psycopg, by_psycopg2])
@pytest.mark.parametrize(
    ("state", "kind", "hint"),
    [
        ("55P03", LockedError, "another session holds"),
        ("40P01", LockedError, "in the way"),
        ("40001", LockedError, "in the way"),
        ("42501", RefusedError, "grant the role"),
        ("28P01", RefusedError, "user and password"),
        ("53300", UnavailableError, "free connections"),
        ("25006", UnavailableError, "primary"),
        ("57P01", UnavailableError, "run again"),
        ("42P07", MigrationError, "stopped midway"),
        ("42701", MigrationError, "stopped midway"),
        ("42P01", MigrationError, "mend the revision"),
        ("23505", MigrationError, "mend the revision"),
    ],
)
def test_postgresql(
    make: Callable[[str], Exception], state: str, kind: type[SidecarError], hint: str
) -> None:
    """The SQLSTATE decides, whatever language the server speaks and whichever driver tells it."""
    explained = explain_wrapped(make(state))
    assert type(explained) is kind
    assert hint in str(explained.hint)


@pytest.mark.parametrize("make", [by_pymysql, by_pymysql_with_state])
@pytest.mark.parametrize(
    ("number", "kind", "hint"),
    [
        (1205, LockedError, "another session holds"),
        (1213, LockedError, "in the way"),
        (1142, RefusedError, "grant the role"),
        (1044, RefusedError, "grant the role"),
        (1045, RefusedError, "user and password"),
        (1040, UnavailableError, "free connections"),
        (1836, UnavailableError, "primary"),
        (2013, UnavailableError, "run again"),
        (1050, MigrationError, "stopped midway"),
        (1060, MigrationError, "stopped midway"),
        (1061, MigrationError, "stopped midway"),
        (1146, MigrationError, "stopped midway"),
        (1062, MigrationError, "mend the revision"),
    ],
)
def test_mariadb(
    make: Callable[[int], Exception], number: int, kind: type[SidecarError], hint: str
) -> None:
    """The number decides; the SQLSTATE that newer drivers add to it says less."""
    explained = explain_wrapped(make(number))
    assert type(explained) is kind
    assert hint in str(explained.hint)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("The MariaDB server is running with the --read-only option", UnavailableError),
        ("The MySQL server is running with the --secure-file-priv option", MigrationError),
    ],
)
def test_option_that_forbids_a_statement(text: str, kind: type[SidecarError]) -> None:
    """1290 is every option that forbids something, and only one of them passes."""
    assert type(explain_wrapped(pymysql.err.OperationalError(1290, text))) is kind


@pytest.mark.parametrize(
    ("statement", "kind", "hint"),
    [
        ("SELECT * FROM nothing", MigrationError, "mend the revision"),
        ("CREATE TABLE t (id INTEGER)", MigrationError, "stopped midway"),
        ("ALTER TABLE t ADD COLUMN id INTEGER", MigrationError, "stopped midway"),
        ("frob", MigrationError, "mend the revision"),
    ],
)
def test_sqlite(statement: str, kind: type[SidecarError], hint: str) -> None:
    """SQLite has one code for all faulty statements, so its text decides."""
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t (id INTEGER)")
    with pytest.raises(sqlite3.Error) as caught:
        connection.execute(statement)
    connection.close()
    explained = explain_wrapped(caught.value)
    assert type(explained) is kind
    assert hint in str(explained.hint)


def test_text_of_other_errors_is_no_verdict() -> None:
    """What a revision raises itself is its failure, whatever words it has for it."""
    error = RuntimeError("server closed the connection; password authentication failed")
    assert type(explain(error)) is MigrationError


def test_error_of_a_driver_in_a_chain_is_seen_through() -> None:
    """A lost connection is one also where a second error was raised while it was handled."""
    outer = DBAPIError("ROLLBACK", {}, psycopg.OperationalError("the connection is closed"))
    outer.__context__ = by_psycopg("57P01")
    assert type(explain(outer)) is UnavailableError


def test_revision_is_told_from_other_files_below_a_folder_of_that_name(tmp_path: Path) -> None:
    """All of an application may lie in a folder `versions`: a revision is named, and no helper."""
    revision = tmp_path / "migrations" / "versions" / "r1.py"
    helper = tmp_path / "versions" / "shop" / "helper.py"
    inner = compile("raise error", str(helper), "exec")
    outer = compile("exec(inner)", str(revision), "exec")
    with pytest.raises(MissingKeyError) as caught:
        exec(outer, {"inner": inner, "error": MissingKeyError("TENANT")})  # noqa: S102 - its frames
    assert str(revision) in str(explain(caught.value, repository=tmp_path / "migrations"))
