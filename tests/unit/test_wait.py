"""What an error means, where no server is needed to say so, and how the wait keeps time."""

import sqlite3
import threading
import time
from pathlib import Path

import pymysql
import pytest
from sqlalchemy import URL, make_url
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from flask_migrate_sidecar.database.causes import Verdict
from flask_migrate_sidecar.database.connect import Database
from flask_migrate_sidecar.database.errors import Moment, diagnose, make_error
from flask_migrate_sidecar.database.wait import Clock as Times
from flask_migrate_sidecar.database.wait import Visit, wait_for_databases
from flask_migrate_sidecar.errors import RefusedError, UnavailableError
from sidecar_runs import DEADLINE

psycopg = pytest.importorskip("psycopg")

POSTGRESQL = make_url("postgresql+psycopg://shop:s3cret@db:5432/shop")
MARIADB = make_url("mysql+pymysql://shop:s3cret@db/shop")


def classify(error: BaseException, url: URL) -> tuple[Verdict, str]:
    """Give the verdict on a login that failed, and its reason."""
    found = diagnose(error, url)
    return found.verdict, found.reason


def is_lost(error: BaseException) -> bool:
    """Tell whether a revision failed because its connection was lost."""
    return diagnose(error, moment=Moment.REVISION).verdict is Verdict.TRANSIENT


@pytest.mark.parametrize(
    "message",
    [
        "FATAL:  Passwort-Authentifizierung für Benutzer »shop« fehlgeschlagen",
        "FATAL:  something that no table knows",
        'FATAL:  database "the certificate is no pg_hba.conf" is being recovered',
        "SSL SYSCALL error: EOF detected",
        "connection to server failed: SSL error: unexpected EOF, Connection reset by peer",
        'FATAL:  the database system is in recovery mode; role "a" does not exist',
    ],
)
def test_unknown_answer_is_waited_for(message: str) -> None:
    """What is not known to be a refusal may get better: a server may speak another language."""
    verdict, _ = classify(psycopg.OperationalError(message), POSTGRESQL)
    assert verdict is Verdict.NOT_READY


@pytest.mark.parametrize(
    "message",
    [
        "FATAL:  no such database: shop",
        "FATAL:  no such user: shop",
        "FATAL:  SASL authentication failed",
        "certificate verify failed: self-signed certificate in certificate chain",
        "SSL error: tlsv1 alert unknown ca",
        'root certificate file "/nosuch" does not exist',
        "FATAL:  unsupported startup parameter: search_path",
    ],
)
def test_refusals_of_poolers_and_tls(message: str) -> None:
    """PgBouncer says no in words of its own, and TLS libraries in theirs."""
    verdict, _ = classify(psycopg.OperationalError(message), POSTGRESQL)
    assert verdict is Verdict.REFUSED


def test_refusal_of_one_address_outweighs_silence_of_another() -> None:
    """A name with two addresses, of which one has no server, is judged by the one that answers."""
    message = (
        'connection to server at "db" (::1), port 5432 failed: Connection refused\n'
        'connection to server at "db" (127.0.0.1), port 5432 failed: FATAL:  database "shop" does'
        " not exist"
    )
    verdict, reason = classify(psycopg.OperationalError(message), POSTGRESQL)
    assert (verdict, reason) == (Verdict.REFUSED, 'database "shop" does not exist')


def test_reason_is_one_short_line_without_the_secret() -> None:
    """A reason fits a log field, and passwords are taken out of it in each spelling."""
    error = psycopg.OperationalError("s3cret went wrong\n" * 2 + "x" * 10_000)
    _, reason = classify(error, POSTGRESQL)
    assert reason == "*** went wrong"
    _, reason = classify(psycopg.OperationalError("x" * 10_000), POSTGRESQL)
    assert len(reason) < 500


def test_error_without_words_is_named() -> None:
    """An error that says nothing is named by its kind."""
    assert classify(psycopg.OperationalError(""), POSTGRESQL)[1] == "OperationalError"


def test_wrapped_error_is_found() -> None:
    """What SQLAlchemy and an application's factory make of an error is looked through."""
    original = pymysql.err.OperationalError(1049, "Unknown database 'shop'")
    wrapped = OperationalError("SELECT 1", {}, original)
    found = classify(_raised_from(wrapped), MARIADB)
    assert found == (Verdict.REFUSED, "Unknown database 'shop' (1049)")


@pytest.mark.parametrize("number", [2002, 2003, 2005, 2006, 2013, 1040, 1203, 1226, 1053, 9999])
def test_mysql_numbers_to_wait_for(number: int) -> None:
    """Full, gone, unreachable and unknown all may get better."""
    verdict, _ = classify(pymysql.err.OperationalError(number, "x"), MARIADB)
    assert verdict is Verdict.NOT_READY


@pytest.mark.parametrize("number", [1044, 1045, 1049, 1129, 1130, 1698, 2026, 3118, 3159, 4151])
def test_mysql_numbers_that_refuse(number: int) -> None:
    """Access, unknown database, host and TLS are refused (MySQL manual B.3)."""
    error = pymysql.err.OperationalError(number, "x")
    assert classify(error, MARIADB)[0] is Verdict.REFUSED


@pytest.mark.parametrize(
    ("state", "verdict"),
    [
        ("28P01", Verdict.REFUSED),
        ("3D000", Verdict.REFUSED),
        ("42501", Verdict.REFUSED),
        ("57P03", Verdict.NOT_READY),
        ("53300", Verdict.NOT_READY),
        ("XX000", Verdict.NOT_READY),
    ],
)
def test_query_is_judged_by_sqlstate(state: str, verdict: Verdict) -> None:
    """A query that fails carries its SQLSTATE, whatever language its text is in."""
    error = psycopg.errors.lookup(state)("nein")
    assert classify(error, POSTGRESQL)[0] is verdict


@pytest.mark.parametrize("state", ["08003", "08006", "57P01", "57P02", "57P03"])
def test_lost_connection_by_sqlstate(state: str) -> None:
    """Class 08 and an operator's shutdown mean that the connection is gone."""
    assert is_lost(_raised_from(psycopg.errors.lookup(state)("x")))


@pytest.mark.parametrize("number", [2006, 2013, 1053, 1927])
def test_lost_connection_by_number(number: int) -> None:
    """MariaDB and MySQL tell a lost connection by number."""
    assert is_lost(pymysql.err.OperationalError(number, "x"))


@pytest.mark.parametrize(
    "error",
    [
        psycopg.errors.lookup("42P01")("server closed the connection: no such table"),
        pymysql.err.ProgrammingError(1146, "no such table"),
        RuntimeError("server closed the connection unexpectedly"),
        sqlite3.OperationalError("database is locked"),
    ],
)
def test_other_errors_are_no_lost_connection(error: Exception) -> None:
    """An error of SQL or of a revision's code is code 8, not 5."""
    assert not is_lost(error)


def test_lost_connection_is_explained() -> None:
    """The error that ends the run names database and place."""
    lost = pymysql.err.OperationalError(2013, "Lost connection")
    error = make_error(diagnose(lost, MARIADB), MARIADB, "stock")
    assert isinstance(error, UnavailableError)
    assert str(error) == "database 'stock' at db is not available: Lost connection (2013)"
    assert error.fields["reason"] == "Lost connection (2013)"


class Clock:
    """Stands for the `time` of the wait: only its pauses take time."""

    def __init__(self) -> None:
        self.now = time.monotonic()

    def monotonic(self) -> float:
        """Tell the time."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let it pass."""
        self.now += seconds


@pytest.fixture
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the wait go by a clock of its own."""
    monkeypatch.setattr("flask_migrate_sidecar.database.wait.time", Clock())


CLOSED = make_url("postgresql+psycopg://u:p@127.0.0.1:1/d")


@pytest.mark.timeout(60)
@pytest.mark.usefixtures("_clock")
def test_deadline_is_kept_to_the_moment() -> None:
    """The last try is made at the deadline, neither sooner nor later."""
    with pytest.raises(UnavailableError) as caught:
        _wait(Database("default", CLOSED), timeout=3)
    assert caught.value.fields["elapsed"] == pytest.approx(3, abs=0.001)


@pytest.mark.timeout(60)
@pytest.mark.usefixtures("_clock")
def test_grace_is_kept_to_the_moment(tmp_path: Path) -> None:
    """A refusal counts once it has lasted for the grace, neither sooner nor later."""
    missing = make_url(f"sqlite:///{tmp_path}/nosuch/x.db")
    with capture_logs() as logs, pytest.raises(RefusedError) as caught:
        _wait(Database("default", missing), timeout=60, grace=3)
    lasted = float(str(caught.value.fields["elapsed"])) - logs[0]["elapsed"]
    assert lasted == pytest.approx(3, abs=0.002)


@pytest.mark.usefixtures("_clock")
def test_pauses_grow_from_a_glance_to_a_second(tmp_path: Path) -> None:
    """The first pauses are about 50 ms; a refusal's are longer, none is past a second."""
    with capture_logs() as logs, pytest.raises(UnavailableError) as caught:
        _wait(Database("default", CLOSED), timeout=1)
    assert 0 < logs[0]["next_try"] <= 0.05
    assert 10 <= int(str(caught.value.fields["attempts"])) <= 45
    missing = make_url(f"sqlite:///{tmp_path}/nosuch/x.db")
    with capture_logs() as logs, pytest.raises(RefusedError):
        _wait(Database("default", missing), timeout=1)
    assert 0.2 <= logs[0]["next_try"] <= 0.5


def test_arguments_that_the_driver_does_not_take_are_refused() -> None:
    """A wrong argument stays wrong: it must not look like a server that is down."""
    url = make_url("mysql+pymysql://u:p@127.0.0.1:1/d?nosuch=1")
    with pytest.raises(RefusedError, match="nosuch"):
        _wait(Database("default", url), timeout=0)


def test_grace_of_zero_ends_at_the_first_refusal(tmp_path: Path) -> None:
    """Who wants no grace gets an answer at once."""
    start = time.monotonic()
    url = make_url(f"sqlite:///{tmp_path}/nosuch/x.db")
    with pytest.raises(RefusedError):
        _wait(Database("default", url), timeout=200, grace=0)
    assert time.monotonic() - start < 100


def _raised_from(cause: Exception) -> Exception:
    error = RuntimeError("env.py failed")
    error.__cause__ = cause
    return error


def _wait(database: Database, *, timeout: float, grace: float = 200) -> None:
    wait_for_databases(
        [database], timeout=timeout, connect_timeout=60, refused_grace=grace, writes=True
    )


def test_grace_begins_anew() -> None:
    """A server that refuses, then is not there, then refuses has a whole grace once more."""
    answers: list[Exception] = [
        psycopg.OperationalError("FATAL:  password authentication failed"),
        psycopg.OperationalError("FATAL:  the database system is starting up"),
    ]

    def probe() -> str:
        raise answers.pop(0)

    visit = Visit(Database("default", POSTGRESQL), probe)
    clock = Times(timeout=60, connect_timeout=5, refused_grace=0)
    visit.look(clock)
    assert clock.refused_long_enough(visit)
    visit.look(clock)
    assert not clock.refused_long_enough(visit)


def test_attempt_that_has_not_answered_is_gone_on_with() -> None:
    """A server that is slow is asked once, however often one looks for its answer."""
    begun, answer = [], threading.Event()

    def probe() -> str:
        begun.append(threading.current_thread())
        answer.wait(DEADLINE)
        return "slow 1.0"

    visit = Visit(Database("default", POSTGRESQL), probe)
    for _ in range(3):
        assert visit.look(Times(1e-6, 1, 0)) is None
    answer.set()
    assert visit.look(Times(60, 60, 0)) == "slow 1.0"
    assert len(begun) == 1


def test_attempt_at_the_deadline_has_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes at the last moment, or behind it, still has the time that an answer takes."""
    monkeypatch.setattr("flask_migrate_sidecar.database.wait._LAST_CHANCE", DEADLINE)

    def probe() -> str:
        time.sleep(0.02)
        return "quick 1.0"

    visit = Visit(Database("default", POSTGRESQL), probe)
    assert visit.look(Times(1e-6, 1, 0)) == "quick 1.0"
