"""What an error of a database means in the midst of a revision, and while a lock is taken."""

import json
import sqlite3
import ssl
from contextlib import closing
from functools import partial
from pathlib import Path

import psycopg2
import pymysql
import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

from flask_migrate_sidecar.database.causes import LACKING, UNKNOWN, Verdict
from flask_migrate_sidecar.database.errors import Moment, diagnose
from flask_migrate_sidecar.errors import (
    LockedError,
    MigrationError,
    RefusedError,
    SidecarError,
    UnavailableError,
    passed_through,
)
from flask_migrate_sidecar.history.failure import explain

psycopg = pytest.importorskip("psycopg")


@pytest.mark.parametrize(
    ("state", "verdict"),
    [
        ("08006", Verdict.TRANSIENT),
        ("57P01", Verdict.TRANSIENT),
        ("57014", Verdict.FAILED),
        ("25006", Verdict.NOT_READY),
        ("53300", Verdict.NOT_READY),
        ("28000", Verdict.REFUSED),
        ("42501", Verdict.REFUSED),
        ("55P03", Verdict.LOCKED),
        ("40P01", Verdict.LOCKED),
        ("40001", Verdict.LOCKED),
        ("42P07", Verdict.FAILED),
        ("42P01", Verdict.FAILED),
        ("23505", Verdict.FAILED),
    ],
)
def test_state_in_a_revision(state: str, verdict: Verdict) -> None:
    """An SQLSTATE decides, and its class where the state itself is in no table."""
    error = psycopg.errors.lookup(state)("x")
    assert diagnose(error, moment=Moment.REVISION).verdict is verdict


@pytest.mark.parametrize(
    ("number", "verdict"),
    [
        (2003, Verdict.NOT_READY),
        (2013, Verdict.TRANSIENT),
        (1927, Verdict.TRANSIENT),
        (1040, Verdict.NOT_READY),
        (1142, Verdict.REFUSED),
        (1044, Verdict.REFUSED),
        (1205, Verdict.LOCKED),
        (1213, Verdict.LOCKED),
        (1050, Verdict.FAILED),
        (1146, Verdict.FAILED),
        (1064, Verdict.FAILED),
    ],
)
def test_number_in_a_revision(number: int, verdict: Verdict) -> None:
    """So does the number of MariaDB and MySQL, whatever class their drivers give it."""
    error = pymysql.err.OperationalError(number, "x")
    assert diagnose(error, moment=Moment.REVISION).verdict is verdict


def test_option_that_forbids_is_not_always_a_standby() -> None:
    """1290 is for any option of the server; only read-only ends by itself."""
    waits, fails = (
        pymysql.err.OperationalError(1290, f"running with the {option} option")
        for option in ("--read-only", "--secure-file-priv")
    )
    assert diagnose(waits, moment=Moment.REVISION).verdict is Verdict.NOT_READY
    assert diagnose(fails, moment=Moment.REVISION).verdict is Verdict.FAILED


NO_CONNECTION = [
    'connection failed: connection to server at "127.0.0.1", port 1 failed: Connection refused',
    'connection to server at "h" (10.0.0.1), port 5432 failed: timeout expired',
    "connection timeout expired",
    'could not translate host name "nosuch" to address: Name or service not known',
    "failed to resolve host 'nosuch': [Errno -2] Name or service not known",
]


@pytest.mark.parametrize("text", NO_CONNECTION)
@pytest.mark.parametrize("kind", [psycopg.OperationalError, psycopg2.OperationalError])
def test_failed_connection_in_a_revision(kind: type[Exception], text: str) -> None:
    """A server that is away while env.py connects is unavailable, and no failed revision."""
    found = diagnose(OperationalError("", {}, kind(text)), moment=Moment.REVISION)
    assert found.verdict is Verdict.NOT_READY


def test_answer_of_the_server_counts_before_its_absence() -> None:
    """What was said on the way of connecting decides, not that connecting failed."""
    error = psycopg2.OperationalError(
        'connection to server at "h", port 5432 failed: FATAL:  password authentication failed'
    )
    assert diagnose(error, moment=Moment.REVISION).verdict is Verdict.REFUSED


def test_busy_file_in_a_revision(tmp_path: Path) -> None:
    """A SQLite file that another one holds is a lock that was not to be had."""
    path = tmp_path / "x.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 0})
        with pytest.raises(OperationalError) as caught, engine.connect() as connection:
            connection.exec_driver_sql("CREATE TABLE t (i INTEGER)")
        engine.dispose()
    assert diagnose(caught.value, moment=Moment.REVISION).verdict is Verdict.LOCKED
    assert diagnose(caught.value).verdict is Verdict.NOT_READY
    assert isinstance(explain(caught.value), LockedError)


def test_table_that_is_locked_by_another_one(tmp_path: Path) -> None:
    """In a cache that two connections share, a table is busy as a file is between two processes."""
    url = f"file:{tmp_path}/x.db?cache=shared"
    with closing(sqlite3.connect(url, uri=True, isolation_level=None)) as other:
        other.execute("CREATE TABLE t (i INTEGER)")
        other.execute("BEGIN EXCLUSIVE")
        ours = sqlite3.connect(url, uri=True, timeout=0)
        with closing(ours), pytest.raises(sqlite3.OperationalError) as caught:
            ours.execute("INSERT INTO t VALUES (1)")
    assert diagnose(caught.value, moment=Moment.REVISION).verdict is Verdict.LOCKED


def test_table_that_is_locked_by_oneself() -> None:
    """A revision that drops what it still reads is at fault: to run again changes nothing."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript("CREATE TABLE t (i INTEGER); INSERT INTO t VALUES (1), (2)")
        rows = connection.execute("SELECT i FROM t")
        rows.fetchone()
        with pytest.raises(sqlite3.OperationalError, match="locked") as caught:
            connection.execute("DROP TABLE t")
    assert diagnose(caught.value, moment=Moment.REVISION).verdict is Verdict.FAILED


@pytest.mark.parametrize(("function", "passed"), [("loads", True), ("dumps", False)])
def test_function_on_the_way_of_an_error(function: str, passed: bool) -> None:
    """An error came through this function of a package, and not merely through the package."""
    with pytest.raises(ValueError, match="Expecting") as caught:
        json.loads("{")
    assert passed_through(caught.value, "json", function) is passed


@pytest.mark.parametrize("is_of_tls", [True, False])
def test_file_of_tls_is_told_from_others(is_of_tls: bool, tmp_path: Path) -> None:
    """A file that is missing is one of TLS where the module `ssl` misses it, and no other."""
    missing = tmp_path / "missing"
    read = partial(ssl.create_default_context, cafile=missing) if is_of_tls else missing.read_text
    with pytest.raises(FileNotFoundError) as caught:
        read()
    found = diagnose(caught.value)
    assert found.verdict is (Verdict.MISFIT if is_of_tls else Verdict.NOT_READY)
    assert ("TLS" in found.hint) == is_of_tls


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (psycopg.errors.lookup("42501")("x"), RefusedError),
        (psycopg.errors.lookup("55P03")("x"), LockedError),
        (psycopg.errors.lookup("57P01")("x"), UnavailableError),
        (psycopg.errors.lookup("25006")("x"), UnavailableError),
        (psycopg.errors.lookup("42601")("x"), MigrationError),
    ],
)
def test_verdict_has_its_exit_code(error: Exception, kind: type[SidecarError]) -> None:
    """Each verdict in the midst of a migration is an error of ours."""
    explained = explain(OperationalError("SELECT 1", {}, error))
    assert type(explained) is kind
    assert explained.hint


def test_text_of_user_code_is_no_verdict() -> None:
    """What a revision raises by itself may say what it likes."""
    error = RuntimeError('FATAL: role "x" does not exist, connection to server failed')
    assert diagnose(error, moment=Moment.REVISION).verdict is Verdict.FAILED


def test_lock_that_is_refused() -> None:
    """What a lock asks for is right: an answer that does not pass is one to its rights."""
    refused = psycopg.errors.lookup("42883")("no such function")
    passing = psycopg.OperationalError("something that no table knows")
    assert diagnose(refused, moment=Moment.LOCK).verdict is Verdict.REFUSED
    assert diagnose(passing, moment=Moment.LOCK).verdict is Verdict.NOT_READY


def test_missing_table_at_import_is_lasting() -> None:
    """A factory that queries a table that is not there fails, and no waiting mends it."""
    found = diagnose(psycopg.errors.lookup("42P01")("x"), moment=Moment.IMPORT)
    assert (found.verdict, found.is_lasting) == (Verdict.FAILED, True)


def test_first_answer_of_a_place_counts() -> None:
    """A place is tried again without TLS: what that ends with is not what is wrong."""
    at = 'connection to server at "db" (10.0.0.1), port 5432 failed: '
    key = (
        f'{at}could not open certificate file "/root/.postgresql/postgresql.crt": Permission denied'
    )
    error = psycopg.OperationalError(f'{key}\n{at}FATAL:  no pg_hba.conf entry for host "10.0.0.2"')
    found = diagnose(error)
    assert "certificate" in found.reason
    assert "TLS" in found.hint


def test_reason_and_hint_are_of_one_place() -> None:
    """Of several places the one that counts gives both."""
    down = 'connection to server at "a", port 1 failed: Connection refused'
    starting = (
        'connection to server at "b", port 2 failed: FATAL:  the database system is starting up'
    )
    for text in (f"{down}\n{starting}", f"{starting}\n{down}"):
        found = diagnose(psycopg.OperationalError(text))
        assert found.reason == "the database system is starting up"
        assert found.verdict is Verdict.NOT_READY


def test_package_that_a_driver_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyMySQL does without cryptography until a server's way to log in needs it."""
    auth = pytest.importorskip("pymysql._auth")
    monkeypatch.setattr(auth, "_have_cryptography", False)
    with pytest.raises(RuntimeError) as caught:
        auth.sha2_rsa_encrypt(b"password", b"salt" * 5, b"key")
    assert diagnose(caught.value).verdict is Verdict.MISFIT


def test_what_is_not_known_is_not_lacking() -> None:
    """Causes with the same words are still different: an unknown error is no missing table."""
    assert UNKNOWN not in LACKING
    error = pymysql.err.OperationalError(9_999, "of another release")
    assert diagnose(error, moment=Moment.LOCK).cause is UNKNOWN
