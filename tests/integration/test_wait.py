"""The classified wait against real servers: what they answer, and what the wait makes of it."""

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pymysql
import pytest
import structlog
from sqlalchemy import URL, NullPool, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError
from structlog.testing import capture_logs

from app_code import drop_right_to_pass
from conftest import clean_environment, serve
from flask_migrate_sidecar.database.causes import Verdict
from flask_migrate_sidecar.database.connect import Database
from flask_migrate_sidecar.database.errors import Moment, diagnose
from flask_migrate_sidecar.database.wait import wait_for_databases
from flask_migrate_sidecar.errors import RefusedError, SidecarError, UnavailableError
from servers import (
    ADMIN,
    HOST,
    PASSWORD,
    USER,
    MariaDB,
    PgBouncer,
    PortReservation,
    Postgres,
    postgres15_programs,
    postgres18_programs,
)
from sidecar_runs import patiently


def classify(error: BaseException, url: URL) -> tuple[Verdict, str]:
    """Give the verdict on a login that failed, and its reason."""
    found = diagnose(error, url)
    return found.verdict, found.reason


def is_lost(error: BaseException) -> bool:
    """Tell whether a revision failed because its connection was lost."""
    return diagnose(error, moment=Moment.REVISION).verdict is Verdict.TRANSIENT


# How late what is due may come on a busy machine; what waits for anything else takes LONG.
SLACK = 40.0
LONG = 120.0
# What an attempt may take where its end is not the claim.
CONNECT = 30.0
GRACE = 0.5
SLOTS = 12
DRIVERS = ("psycopg", "psycopg2")
NOBODY = 65534
# One user for each answer of the server's access rules; the last line admits those of the tests.
ACCESS = f"""
host all barred all reject
host all ghost all trust
host all,replication {ADMIN},{USER},sleeper,limited all scram-sha-256
"""


@pytest.fixture(scope="module", params=[postgres15_programs, postgres18_programs])
def server(request: pytest.FixtureRequest) -> Iterator[Postgres]:
    """Run a PostgreSQL with few slots and with access rules of its own."""
    with contextmanager(serve)(
        lambda: Postgres(request.param(), {"max_connections": str(SLOTS)})
    ) as server:
        (server.data / "pg_hba.conf").write_text(ACCESS)
        server.execute(
            "SELECT pg_reload_conf()",
            f"CREATE ROLE sleeper NOLOGIN PASSWORD '{PASSWORD}'",
            f"CREATE ROLE limited LOGIN CONNECTION LIMIT 0 PASSWORD '{PASSWORD}'",
            "CREATE DATABASE closed ALLOW_CONNECTIONS false",
            "CREATE DATABASE guarded",
            "REVOKE CONNECT ON DATABASE guarded FROM public",
        )
        yield server


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    """Run the test once with each PostgreSQL driver."""
    pytest.importorskip(request.param)
    return str(request.param)


@pytest.fixture
def url(server: Postgres, driver: str) -> URL:
    """Return where the tests' user finds the maintenance database."""
    return make_url(server.admin_url).set(drivername=f"postgresql+{driver}", username=USER)


@pytest.fixture(scope="module")
def maria() -> Iterator[MariaDB]:
    """Run a MariaDB with few slots."""
    settings = {"max-connections": "10", "max-user-connections": "6"}
    with contextmanager(serve)(lambda: MariaDB(settings)) as server:
        yield server


@pytest.fixture(params=["pymysql", "mysqldb"])
def maria_url(request: pytest.FixtureRequest, maria: MariaDB) -> URL:
    """Return where the tests' user finds a database of its own, for each driver."""
    pytest.importorskip({"mysqldb": "MySQLdb"}.get(request.param, request.param))
    return make_url(maria.create_database().url(request.param))


@pytest.fixture
def silent_port() -> Iterator[socket.socket]:
    """Listen, and never answer."""
    with socket.create_server((HOST, 0)) as listener:
        yield listener


@pytest.fixture
def closed_port() -> Iterator[int]:
    """Return a port on which nobody listens: it is taken, so that nobody else comes to."""
    with socket.socket() as bound:
        bound.bind((HOST, 0))
        yield bound.getsockname()[1]


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Have SIGINT interrupt, also where the shell that began the run has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"password": "wr0ng"}, f'password authentication failed for user "{USER}"'),
        ({"password": ""}, "fe_sendauth: no password supplied"),
        ({"database": "nosuch"}, 'database "nosuch" does not exist'),
        ({"username": "ghost"}, 'role "ghost" does not exist'),
        ({"username": "sleeper"}, 'role "sleeper" is not permitted to log in'),
        ({"username": "barred"}, "pg_hba.conf rejects connection"),
        ({"username": "unlisted"}, "no pg_hba.conf entry for host"),
        ({"database": "closed"}, 'database "closed" is not currently accepting connections'),
        ({"database": "guarded"}, 'permission denied for database "guarded"'),
        ({"query": {"sslmode": "require"}}, "server does not support SSL, but SSL was required"),
        ({"query": {"nosuch": "1"}}, 'invalid connection option "nosuch"'),
        ({"query": {"sslmode": "nosuch"}}, "invalid sslmode value"),
    ],
)
def test_postgresql_refusal_ends_after_the_grace(
    url: URL, change: dict[str, object], reason: str
) -> None:
    """What a PostgreSQL server refuses ends with code 6 once the grace is over, not before."""
    error, seconds = _fail(url.set(**change), grace=GRACE)  # type: ignore[arg-type]
    assert isinstance(error, RefusedError)
    assert reason in str(error)
    assert GRACE <= seconds < GRACE + SLACK


def test_refusal_counts_at_the_deadline(url: URL) -> None:
    """A deadline before the end of the grace leaves the last verdict standing: code 6."""
    error, late = _fail_answered(url.set(password="wr0ng"), timeout=0.5)
    assert isinstance(error, RefusedError)
    assert 0 <= late < SLACK


def test_refusal_says_where_and_what_to_do(server: Postgres, url: URL) -> None:
    """The message names database, place and reason, the hint a remedy, and nothing the secret."""
    error, _ = _fail(url.set(password="wr0ng"), timeout=0, name="stock")
    assert f"database 'stock' at {HOST}:{server.port} refuses: password" in str(error)
    assert error.hint is not None
    assert "password" in error.hint
    assert error.fields["database"] == "stock"
    assert "wr0ng" not in f"{error}{error.hint}{error.fields}"


def test_role_created_within_the_grace_is_ready(server: Postgres, url: URL) -> None:
    """Roles and databases get created late: a refusal that ends within the grace is forgotten."""
    name = f"late_{os.urandom(4).hex()}"
    create = f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'"
    rule = (server.data / "pg_hba.conf").read_text() + f"host all {name} all scram-sha-256\n"
    (server.data / "pg_hba.conf").write_text(rule)
    server.execute("SELECT pg_reload_conf()")
    with _once_waiting(lambda: server.execute(create)):
        versions = _wait(url.set(username=name), timeout=LONG, grace=LONG)
    assert versions["default"].startswith("PostgreSQL ")


def test_refused_connection_ends_at_the_deadline(driver: str, closed_port: int) -> None:
    """A closed port is waited for until the deadline, then code 5."""
    error, late = _fail_answered(f"postgresql+{driver}://u:p@{HOST}:{closed_port}/d", timeout=1)
    assert isinstance(error, UnavailableError)
    assert "Connection refused" in str(error)
    assert 0 <= late < SLACK


@pytest.mark.parametrize(
    "drivername", ["postgresql+psycopg", "postgresql+psycopg2", "mysql+pymysql"]
)
def test_unknown_host_ends_at_the_deadline(drivername: str) -> None:
    """A name that does not resolve yet is waited for: services get theirs late."""
    error, late = _fail_answered(f"{drivername}://u:p@nosuch.invalid/d", timeout=1)
    assert isinstance(error, UnavailableError)
    assert "nosuch.invalid" in str(error)
    assert 0 <= late < SLACK


@pytest.mark.parametrize(
    "drivername", ["postgresql+psycopg", "postgresql+psycopg2", "mysql+pymysql"]
)
def test_silent_port_ends_at_the_deadline(drivername: str, silent_port: socket.socket) -> None:
    """A port that accepts and never answers cannot hold an attempt longer than its limit."""
    port = silent_port.getsockname()[1]
    error, seconds = _fail(f"{drivername}://u:p@{HOST}:{port}/d", timeout=1, connect_timeout=LONG)
    assert isinstance(error, UnavailableError)
    assert "no answer" in str(error)
    assert 1 <= seconds < 1 + SLACK


def test_deadline_does_not_hide_the_reason(silent_port: socket.socket) -> None:
    """A try that the deadline cuts short says less than the one before it."""

    def hang_up_once() -> None:
        silent_port.accept()[0].close()

    def fail(limit: float) -> tuple[SidecarError, list[Any]]:
        thread = threading.Thread(target=hang_up_once)
        thread.start()
        url = f"postgresql+psycopg://u:p@{HOST}:{silent_port.getsockname()[1]}/d"
        with capture_logs() as logs:
            error, _ = _fail(url, timeout=limit, connect_timeout=LONG)
        thread.join()
        return error, logs

    error, _ = patiently(fail, lambda found: _has_answer(found[1]))
    assert "server closed the connection" in str(error)


@pytest.mark.parametrize(
    "drivername", ["postgresql+psycopg", "postgresql+psycopg2", "mysql+pymysql"]
)
def test_one_attempt_ends_with_its_own_limit(drivername: str, silent_port: socket.socket) -> None:
    """A single try takes the connect timeout, to libpq's rounding, and no longer."""
    port = silent_port.getsockname()[1]
    error, seconds = _fail(f"{drivername}://u:p@{HOST}:{port}/d", timeout=0, connect_timeout=1)
    assert isinstance(error, UnavailableError)
    assert 1 <= seconds < 1 + SLACK


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(
    "drivername", ["postgresql+psycopg2", "postgresql+psycopg", "mysql+pymysql"]
)
def test_interrupt_passes_at_once(drivername: str, silent_port: socket.socket) -> None:
    """An interrupt ends the wait even while a driver hangs in its C library."""
    port = silent_port.getsockname()[1]

    def interrupt() -> None:
        with closing(silent_port.accept()[0]):
            os.kill(os.getpid(), signal.SIGINT)
            gone.wait(LONG)

    gone = threading.Event()
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            _wait(f"{drivername}://u:p@{HOST}:{port}/d", timeout=LONG, connect_timeout=LONG)
        assert time.monotonic() - start < SLACK
    finally:
        gone.set()
        thread.join()


def test_stopped_server_is_waited_for(server: Postgres, url: URL) -> None:
    """A server that hangs (SIGSTOP) is not ready, and ready again once it goes on."""
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    try:
        error, _ = _fail(url, timeout=1)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert isinstance(error, UnavailableError)
    assert _wait(url, timeout=LONG)


def test_full_slots_are_waited_for(url: URL) -> None:
    """Connection slots get free again: too many clients is not ready."""
    with _filled(url) as error:
        verdict, reason = classify(error, url)
        failed, _ = _fail(url, timeout=0.5)
    assert verdict is Verdict.NOT_READY
    assert "too many clients" in reason or "connection slots are reserved" in reason
    assert isinstance(failed, UnavailableError)
    assert _wait(url, timeout=LONG)


def test_limit_of_a_role_is_waited_for(url: URL) -> None:
    """A role's own limit is like the server's."""
    error, _ = _fail(url.set(username="limited"), timeout=0)
    assert isinstance(error, UnavailableError)
    assert 'too many connections for role "limited"' in str(error)


def test_server_that_shuts_down_is_waited_for(server: Postgres, url: URL) -> None:
    """During a smart shutdown, while a session stays, the server is not ready."""
    with closing(create_engine(url, poolclass=NullPool).connect()) as session:
        session.execute(text("SELECT 1"))
        assert server.pid is not None
        os.kill(server.pid, signal.SIGTERM)
        try:
            reasons = _reasons_until(url, "shutting down")
        finally:
            session.close()
            server.stop()
            server.start()
    assert reasons[-1] == "the database system is shutting down"


def test_wait_outlasts_a_server_that_is_down(server: Postgres, url: URL) -> None:
    """A server that comes up during the wait ends it, and the log tells why it waited."""
    server.stop()
    with _once_waiting(server.start) as logs:
        versions = _wait(url, timeout=LONG)
    assert versions["default"].startswith("PostgreSQL ")
    assert logs[0]["event"] == "database.waiting"
    assert "Connection refused" in logs[0]["reason"]
    assert logs[-1]["event"] == "database.ready"
    assert logs[-1]["server_version"] == versions["default"]


def test_server_that_recovers_is_waited_for(server: Postgres, url: URL) -> None:
    """A server that replays its log says that it starts up: not ready."""
    settings = {"restore_command": "sleep 60", "hot_standby": "on"}
    with _standby(server, settings) as port:
        reasons = _reasons_until(url.set(port=port), "starting up")
    assert reasons[-1] == "the database system is starting up"


def test_standby_without_reads_is_waited_for(server: Postgres, url: URL) -> None:
    """A standby that takes no queries at all is not ready."""
    with _standby(server, {"hot_standby": "off"}) as port:
        reasons = _reasons_until(url.set(port=port), "not accepting connections")
    assert "the database system is not accepting connections" in reasons[-1]


def test_standby_is_ready_to_read_only(server: Postgres, url: URL) -> None:
    """A hot standby serves a command that reads, and is not ready for one that writes."""
    with _standby(server, {"hot_standby": "on"}) as port:
        assert _wait(url.set(port=port), timeout=LONG, writes=False)
        error, late = _fail_answered(url.set(port=port), timeout=1)
    assert isinstance(error, UnavailableError)
    assert "standby" in str(error)
    assert "primary" in str(error.hint)
    assert 0 <= late < SLACK


def test_read_only_default_is_waited_for(server: Postgres, url: URL) -> None:
    """Where sessions only read, by a setting, a command that writes waits for its end."""
    name = f"reader_{os.urandom(4).hex()}"
    server.execute(f"CREATE DATABASE {name}")
    server.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    assert _wait(url.set(database=name), timeout=0, writes=False)
    error, _ = _fail(url.set(database=name), timeout=0)
    assert isinstance(error, UnavailableError)
    assert "default_transaction_read_only is on" in str(error)


def test_waiter_is_modest(server: Postgres, url: URL) -> None:
    """A waiter has one connection at most, and is never in a transaction."""
    name = f"modest_{os.urandom(4).hex()}"
    server.execute(f"CREATE DATABASE {name}")
    server.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    query = text(
        "SELECT count(*), count(*) FILTER (WHERE state LIKE 'idle in transaction%')"
        " FROM pg_stat_activity WHERE datname = :name AND state IS NOT NULL"
    )
    looks: list[tuple[int, int]] = []
    done = threading.Event()

    def look() -> None:
        engine = create_engine(server.admin_url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            while not done.is_set():
                found = connection.execute(query, {"name": name}).one()
                looks.append((found[0], found[1]))

    thread = threading.Thread(target=look)
    thread.start()
    # The session is there for moments: as often as it takes to see it, and to see it gone.
    patiently(
        lambda limit: _fail(url.set(database=name), timeout=limit),
        lambda _: {0, 1} <= {sessions for sessions, _ in looks},
        least=2,
    )
    done.set()
    thread.join()
    assert {sessions for sessions, _ in looks} == {0, 1}
    assert {in_transaction for _, in_transaction in looks} == {0}


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"password": "wr0ng"}, "SASL authentication failed"),
        ({"username": "ghost"}, "SASL authentication failed"),
        ({"database": "nosuch"}, 'database "nosuch" does not exist'),
        ({"query": {"options": "-c jit=off"}}, "unsupported startup parameter"),
    ],
)
def test_refusal_through_a_pooler_ends_after_the_grace(
    pgbouncer: PgBouncer, driver: str, change: dict[str, object], reason: str
) -> None:
    """PgBouncer's refusals count, and its silence after the first one does not undo it."""
    pytest.importorskip(driver)
    url = make_url(pgbouncer.create_database().url(driver)).set(**change)  # type: ignore[arg-type]
    # A name of its own: PgBouncer remembers the refusal of the other driver's.
    if "database" in change:
        url = url.set(database=f"nosuch_{driver}")
        reason = reason.replace("nosuch", f"nosuch_{driver}")
    error, _ = _fail(url, connect_timeout=1, grace=GRACE)
    assert isinstance(error, RefusedError)
    assert reason in str(error)


def test_pooler_without_its_server_is_waited_for(driver: str) -> None:
    """A pooler that lets us in is not ready while its server is down: a query must answer."""
    with (
        contextmanager(serve)(lambda: Postgres(postgres15_programs())) as behind,
        contextmanager(serve)(lambda: PgBouncer(behind, {"server_login_retry": "1"})) as pooler,
    ):
        url = pooler.create_database().url(driver)
        behind.stop()
        error, _ = _fail(url, timeout=1)
        assert isinstance(error, UnavailableError)
        behind.start()
        assert _wait(url)


def test_ended_session_is_a_disconnect(server: Postgres, url: URL) -> None:
    """A session that an operator ended, or a lost server, is told from an error of SQL."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        pid = connection.scalar(text("SELECT pg_backend_pid()"))
        server.execute(f"SELECT pg_terminate_backend({pid}, 5000)")
        with pytest.raises(DBAPIError) as caught:
            connection.execute(text("SELECT 1"))
    assert is_lost(caught.value)
    assert caught.value.orig is not None
    assert is_lost(caught.value.orig)
    assert diagnose(caught.value, url).verdict is Verdict.NOT_READY


def test_error_of_sql_is_no_disconnect(url: URL) -> None:
    """A statement that fails leaves the connection."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection, pytest.raises(DBAPIError) as caught:
        connection.execute(text("SELECT * FROM nosuch"))
    assert not is_lost(caught.value)


def test_killed_mariadb_session_is_a_disconnect(maria: MariaDB, maria_url: URL) -> None:
    """KILL is told from an error of SQL, and so is an error of SQL from it."""
    engine = create_engine(maria_url, poolclass=NullPool)
    with engine.connect() as connection, pytest.raises(DBAPIError) as caught:
        connection.execute(text("SELECT * FROM nosuch"))
    assert not is_lost(caught.value)
    with engine.connect() as connection:
        maria.execute(f"KILL {connection.scalar(text('SELECT CONNECTION_ID()'))}")
        with pytest.raises(DBAPIError) as caught:
            connection.execute(text("SELECT 1"))
    assert is_lost(caught.value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"password": "wr0ng"}, "Access denied for user"),
        ({"username": "ghost"}, "Access denied for user"),
        ({"username": ADMIN, "database": "nosuch"}, "Unknown database 'nosuch'"),
        ({"database": "nosuch"}, "Access denied for user"),
        ({"query": {"nosuch": "1"}}, "argument"),
    ],
)
def test_mariadb_refusal_ends_after_the_grace(
    maria_url: URL, change: dict[str, object], reason: str
) -> None:
    """What a MariaDB server refuses ends with code 6 once the grace is over."""
    error, seconds = _fail(maria_url.set(**change), grace=GRACE)  # type: ignore[arg-type]
    assert isinstance(error, RefusedError)
    assert reason in str(error)
    assert GRACE <= seconds < GRACE + SLACK


def test_mariadb_without_tls_is_refused(maria: MariaDB) -> None:
    """A client that wants TLS is refused where the server has none."""
    url = make_url(maria.create_database().url()).update_query_dict({"ssl_check_hostname": "true"})
    error, _ = _fail(url, timeout=0)
    assert isinstance(error, RefusedError)
    assert "(2026)" in str(error)


def test_mariadb_that_demands_tls_is_refused(maria: MariaDB, maria_url: URL) -> None:
    """A server that demands TLS refuses a client without it."""
    with _as_root(maria) as root:
        root("SET GLOBAL require_secure_transport = ON")
        try:
            error, _ = _fail(maria_url, timeout=0)
        finally:
            root("SET GLOBAL require_secure_transport = OFF")
    assert isinstance(error, RefusedError)
    assert "TLS" in str(error.hint)


def test_mariadb_host_that_is_not_allowed_is_refused(maria: MariaDB, maria_url: URL) -> None:
    """A server that lets no user of this host in says so with 1130."""
    accounts = [(ADMIN, "%"), (USER, "%"), ("root", HOST)]
    with _as_root(maria) as root:
        for user, host in accounts:
            root(f"RENAME USER {user}@'{host}' TO {user}@'192.0.2.1'")
        root("FLUSH PRIVILEGES")
        try:
            error, _ = _fail(maria_url, timeout=0)
        finally:
            for user, host in accounts:
                root(f"RENAME USER {user}@'192.0.2.1' TO {user}@'{host}'")
            root("FLUSH PRIVILEGES")
    assert isinstance(error, RefusedError)
    assert "(1130)" in str(error)


@pytest.mark.parametrize(("users", "numbers"), [((USER,), {1203, 1226}), ((USER, ADMIN), {1040})])
def test_full_mariadb_is_waited_for(
    maria_url: URL, users: Sequence[str], numbers: set[int]
) -> None:
    """Slots of a user (1203, 1226) and of the server (1040) get free again."""
    with ExitStack() as stack:
        for user in users:
            error = stack.enter_context(_filled(maria_url.set(username=user)))
        verdict, reason = classify(error, maria_url)
    assert verdict is Verdict.NOT_READY
    assert any(f"({number})" in reason for number in numbers)


def test_read_only_mariadb_is_ready_to_read_only(maria: MariaDB, maria_url: URL) -> None:
    """A read_only server serves a command that reads, whoever asks, and not one that writes."""
    maria.execute("SET GLOBAL read_only = ON")
    try:
        assert _wait(maria_url, timeout=0, writes=False)["default"].startswith("MariaDB ")
        for user in (USER, ADMIN):
            error, _ = _fail(maria_url.set(username=user), timeout=0)
            assert isinstance(error, UnavailableError)
            assert "only reads: read_only" in str(error)
    finally:
        maria.execute("SET GLOBAL read_only = OFF")
    assert _wait(maria_url, timeout=0)


def test_mariadb_that_is_down_is_waited_for(maria: MariaDB, maria_url: URL) -> None:
    """A server that comes up during the wait ends it."""
    maria.stop()
    with _once_waiting(maria.start):
        assert _wait(maria_url, timeout=LONG)["default"].startswith("MariaDB ")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder that any user may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


@pytest.mark.parametrize("writes", [False, True])
def test_missing_sqlite_file_is_ready_and_stays_missing(folder: Path, writes: bool) -> None:
    """A folder that lets us create the file will do, and the probe does not create it."""
    assert _wait(f"sqlite:///{folder}/x.db", timeout=0, writes=writes)
    assert list(folder.iterdir()) == []


def test_missing_sqlite_folder_is_refused_after_the_grace(folder: Path) -> None:
    """A folder that is not there is refused, but a volume may be mounted late."""
    error, seconds = _fail(f"sqlite:///{folder}/nosuch/x.db", grace=GRACE)
    assert isinstance(error, RefusedError)
    assert f"the folder {folder}/nosuch does not exist" in str(error)
    assert GRACE <= seconds < GRACE + SLACK


def test_sqlite_folder_that_appears_is_ready(folder: Path) -> None:
    """A volume that is mounted within the grace ends the wait."""
    with _once_waiting((folder / "late").mkdir):
        assert _wait(f"sqlite:///{folder}/late/x.db", timeout=LONG, grace=LONG)


@pytest.mark.parametrize("exists", [False, True])
def test_read_only_sqlite_folder_is_refused(folder: Path, exists: bool) -> None:
    """SQLite needs its folder for the journal, so a file alone does not do for writing."""
    if exists:
        _make_sqlite(folder / "x.db").chmod(0o666)
    with _ordinary_user(), _mode(folder, 0o555):
        error, _ = _fail(f"sqlite:///{folder}/x.db", timeout=0)
        if exists:
            assert _wait(f"sqlite:///{folder}/x.db", timeout=0, writes=False)
    assert isinstance(error, RefusedError)
    assert f"the folder {folder} may not be written" in str(error)


def test_locked_sqlite_folder_is_refused(folder: Path) -> None:
    """A folder that this user may not even enter is named, whether or not the file is there."""
    _make_sqlite(folder / "x.db")
    with _ordinary_user(), _mode(folder, 0o000):
        for writes in (True, False):
            error, _ = _fail(f"sqlite:///{folder}/x.db", timeout=0, writes=writes)
            assert isinstance(error, RefusedError)
            assert f"the folder {folder} may not be entered" in str(error)


def test_read_only_sqlite_file_is_refused(folder: Path) -> None:
    """A file without the right to write serves a command that reads only."""
    _make_sqlite(folder / "x.db").chmod(0o444)
    with _ordinary_user():
        error, _ = _fail(f"sqlite:///{folder}/x.db", timeout=0)
        assert _wait(f"sqlite:///{folder}/x.db", timeout=0, writes=False)
    assert isinstance(error, RefusedError)
    assert "x.db may not be written" in str(error)


def test_sqlite_url_that_only_reads_is_refused(folder: Path) -> None:
    """A URL with mode=ro cannot serve a command that writes."""
    _make_sqlite(folder / "x.db")
    url = f"sqlite:///file:{folder}/x.db?mode=ro&uri=true"
    error, _ = _fail(url, timeout=0)
    assert isinstance(error, RefusedError)
    assert _wait(url, timeout=0, writes=False)


def test_file_that_is_no_database_is_refused(folder: Path) -> None:
    """The probe looks into the file: a login alone would not notice."""
    (folder / "x.db").write_text("no database, but long enough to look at" * 100)
    for writes in (False, True):
        error, _ = _fail(f"sqlite:///{folder}/x.db", timeout=0, writes=writes)
        assert isinstance(error, RefusedError)
        assert "not a database" in str(error)


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_locked_sqlite_file_is_waited_for_to_write(folder: Path, journal: str) -> None:
    """Another one's write lock is waited for by a command that writes only: code 5."""
    url = f"sqlite:///{_make_sqlite(folder / 'x.db', journal)}"
    with closing(sqlite3.connect(folder / "x.db", isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        holder.execute("INSERT INTO t VALUES (1)")
        assert _wait(url, timeout=0, writes=False)
        error, late = _fail_answered(url, timeout=1)
        assert isinstance(error, UnavailableError)
        assert "locked" in str(error)
        assert 0 <= late < SLACK
        holder.execute("COMMIT")
    assert _wait(url, timeout=0)


def test_database_in_memory_is_ready() -> None:
    """There is nothing to wait for in memory."""
    assert _wait("sqlite://", timeout=0)["default"].startswith("SQLite ")


def test_databases_share_the_deadline(folder: Path, silent_port: socket.socket) -> None:
    """One that hangs neither keeps another one from being ready nor moves the deadline."""
    hanging = f"postgresql+psycopg://u:p@{HOST}:{silent_port.getsockname()[1]}/d"
    databases = [
        Database("default", make_url(hanging)),
        Database("stock", make_url(f"sqlite:///{folder}/x.db")),
    ]

    def fail(limit: float) -> tuple[float, bool]:
        start = time.monotonic()
        with capture_logs() as logs, pytest.raises(UnavailableError, match="'default'"):
            wait_for_databases(
                databases, timeout=limit, connect_timeout=0.5, refused_grace=LONG, writes=True
            )
        late = time.monotonic() - start - limit
        ready = [line["database"] for line in logs if line["event"] == "database.ready"]
        return late, ready == ["stock"]

    late, is_ready = patiently(fail, lambda found: found[1], least=2)
    assert is_ready
    assert 0 <= late < SLACK


def test_refusal_outweighs_an_absence(folder: Path, closed_port: int) -> None:
    """Of two databases at the deadline the one that refuses decides: waiting will not mend it."""
    databases = [
        Database("default", make_url(f"postgresql+psycopg://u:p@{HOST}:{closed_port}/d")),
        Database("stock", make_url(f"sqlite:///{folder}/nosuch/x.db")),
    ]
    with pytest.raises(RefusedError, match="'stock'"):
        wait_for_databases(
            databases, timeout=0, connect_timeout=CONNECT, refused_grace=LONG, writes=True
        )


def test_zero_tries_each_database_once(closed_port: int) -> None:
    """A wait of 0 is one try, not none and not two."""
    url = make_url(f"postgresql+psycopg://u:p@{HOST}:{closed_port}/d")
    with capture_logs() as logs, pytest.raises(UnavailableError) as caught:
        wait_for_databases(
            [Database("default", url), Database("stock", url)],
            timeout=0,
            connect_timeout=CONNECT,
            refused_grace=0,
            writes=True,
        )
    assert [line["attempt"] for line in logs] == [1, 1]
    assert caught.value.fields["attempts"] == 1


def test_repeated_reasons_are_summarised() -> None:
    """The log has one line for many attempts that failed alike, and a line for the next reason."""

    def was_enough(found: tuple[SidecarError, list[Any]]) -> bool:
        return "(2013)" in str(found[0]) and int(str(found[0].fields["attempts"])) > 2

    error, logs = patiently(_fail_in_two_ways, was_enough, least=2)
    waiting = [line for line in logs if line["event"] == "database.waiting"]
    assert [line["reason"].rpartition(" ")[2] for line in waiting] == ["(2003)", "(2013)"]
    assert waiting[0].keys() >= {"database", "attempt", "elapsed", "reason", "next_try"}
    assert int(str(error.fields["attempts"])) > len(waiting)


def _fail_in_two_ways(limit: float) -> tuple[SidecarError, list[Any]]:
    """Wait in vain for a port that is closed at first, and then hangs up; give the log too."""
    with socket.socket() as bound:
        bound.bind((HOST, 0))
        url = f"mysql+pymysql://u:p@{HOST}:{bound.getsockname()[1]}/d"

        def answer() -> None:
            bound.listen()
            with suppress(OSError):
                while True:
                    bound.accept()[0].close()

        with _once_waiting(lambda: threading.Thread(target=answer, daemon=True).start()) as logs:
            error, _ = _fail(url, timeout=limit)
        bound.shutdown(socket.SHUT_RDWR)
    return error, logs


def _wait(
    url: URL | str,
    *,
    timeout: float = LONG,
    connect_timeout: float = CONNECT,
    grace: float = LONG,
    writes: bool = True,
    name: str = "default",
) -> dict[str, str]:
    return wait_for_databases(
        [Database(name, make_url(url))],
        timeout=timeout,
        connect_timeout=connect_timeout,
        refused_grace=grace,
        writes=writes,
    )


def _fail(
    url: URL | str,
    *,
    timeout: float = LONG,
    connect_timeout: float = CONNECT,
    grace: float = LONG,
    writes: bool = True,
    name: str = "default",
) -> tuple[SidecarError, float]:
    """Wait in vain; return the error and how long it took."""
    start = time.monotonic()
    with pytest.raises((RefusedError, UnavailableError)) as caught:
        _wait(
            url,
            timeout=timeout,
            connect_timeout=connect_timeout,
            grace=grace,
            writes=writes,
            name=name,
        )
    return caught.value, time.monotonic() - start


def _fail_answered(url: URL | str, *, timeout: float) -> tuple[SidecarError, float]:
    """Wait in vain, for longer where a busy machine does not answer by then.

    Returns:
        The error, and how long after the deadline it came.
    """

    def fail(limit: float) -> tuple[SidecarError, float, list[Any]]:
        with capture_logs() as logs:
            error, seconds = _fail(url, timeout=limit)
        return error, seconds - limit, logs

    error, late, _ = patiently(fail, lambda found: _has_answer(found[2]), timeout)
    return error, late


def _has_answer(logs: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether an attempt has ended with anything but silence."""
    reasons = [line["reason"] for line in logs if line["event"] == "database.waiting"]
    return any("no answer" not in reason for reason in reasons)


def _reasons_until(url: URL, wanted: str) -> list[str]:
    """Try until the server gives the wanted answer, past those on the way there."""
    reasons: list[str] = []
    deadline = time.monotonic() + LONG
    while not any(wanted in reason for reason in reasons):
        assert time.monotonic() < deadline, reasons
        error, _ = _fail(url, timeout=0)
        assert isinstance(error, UnavailableError), error
        reasons.append(str(error.fields["reason"]))
    return reasons


@contextmanager
def _once_waiting(action: Callable[[], object]) -> Iterator[list[Any]]:
    """Do something on the side, once the wait has said that it waits; give the log."""
    is_waiting = threading.Event()

    def look(_logger: object, _method: str, line: Any) -> Any:
        if line["event"] == "database.waiting":
            is_waiting.set()
        return line

    def act() -> None:
        is_waiting.wait(LONG)
        action()

    thread = threading.Thread(target=act)
    with capture_logs() as logs:
        structlog.get_config()["processors"].insert(0, look)
        thread.start()
        try:
            yield logs
        finally:
            thread.join()


@contextmanager
def _filled(url: URL) -> Iterator[DBAPIError]:
    """Take all connections that can be had; give the error of the next one."""
    engine = create_engine(url, poolclass=NullPool)
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(engine.connect())
            except DBAPIError as error:
                yield error
                return


@contextmanager
def _as_root(maria: MariaDB) -> Iterator[Callable[[str], object]]:
    """Come in by the socket, which no rule about hosts and TLS concerns."""
    path = str(maria.folder / "socket")
    with pymysql.connect(unix_socket=path, user="root", autocommit=True) as connection:
        yield connection.cursor().execute


@contextmanager
def _standby(server: Postgres, settings: dict[str, str]) -> Iterator[int]:
    """Run a copy of the server that follows it; give its port."""
    programs = server._programs  # noqa: SLF001
    user, group = server._user, server._group  # noqa: SLF001
    with tempfile.TemporaryDirectory(dir=server.folder) as folder, ExitStack() as stack:
        server._own(Path(folder))  # noqa: SLF001
        data, port = Path(folder) / "data", stack.enter_context(closing(PortReservation())).port
        place = f"host={HOST} port={server.port} user={ADMIN} password={PASSWORD}"
        copy = [str(programs / "pg_basebackup"), "-D", str(data), "-d", place]
        subprocess.run(
            [*copy, "-c", "fast", "--no-sync"], check=True, cwd=folder, user=user, group=group
        )
        (data / "standby.signal").touch()
        options = {
            "primary_conninfo": place,
            "listen_addresses": HOST,
            "port": str(port),
            "unix_socket_directories": "",
            "max_connections": str(SLOTS),
            **settings,
        }
        command = [str(programs / "postgres"), "-D", str(data)]
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen(
                [*command, *(f"--{name}={value}" for name, value in options.items())],
                cwd=folder,
                stdout=log,
                stderr=log,
                user=user,
                group=group,
            )
        try:
            yield port
        finally:
            process.send_signal(signal.SIGQUIT)
            process.wait(LONG)


@contextmanager
def _ordinary_user() -> Iterator[None]:
    """Take root's powers away for a while: no permission would stop it."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def _mode(folder: Path, mode: int) -> Iterator[None]:
    with _root_again():
        folder.chmod(mode)
    try:
        yield
    finally:
        with _root_again():
            folder.chmod(0o777)


@contextmanager
def _root_again() -> Iterator[None]:
    """Give the powers back for a moment, where they were root's."""
    user = os.geteuid()
    if os.getuid() == 0:
        os.seteuid(0)
    try:
        yield
    finally:
        os.seteuid(user)


def _make_sqlite(path: Path, journal: str = "delete") -> Path:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode = {journal}")
        connection.execute("CREATE TABLE t (n INTEGER)")
        connection.commit()
    return path


@pytest.fixture(scope="module")
def tls_server() -> Iterator[Postgres]:
    """Run a PostgreSQL that lets its users in over TLS alone."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is missing")
    with contextmanager(serve)(lambda: Postgres(postgres15_programs())) as server:
        files = {name: server.data / f"server.{name}" for name in ("crt", "key")}
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-batch"),
                *("-subj", "/CN=localhost", "-out", files["crt"], "-keyout", files["key"]),
            ],
            check=True,
            capture_output=True,
        )
        for file in files.values():
            file.chmod(0o600)
            if os.geteuid() == 0:
                shutil.chown(file, server.account)
        server.execute("ALTER SYSTEM SET ssl = on", "SELECT pg_reload_conf()")
        (server.data / "pg_hba.conf").write_text(
            f"hostssl all all all scram-sha-256\nhostnossl all {ADMIN} all scram-sha-256\n"
        )
        server.execute("SELECT pg_reload_conf()")
        yield server


@pytest.mark.skipif(os.geteuid() != 0, reason="a file of another user's needs root")
@pytest.mark.parametrize("readable", [True, False])
@pytest.mark.parametrize("driver", DRIVERS)
def test_file_of_tls_that_may_not_be_read(
    driver: str, readable: bool, tls_server: Postgres, tmp_path: Path
) -> None:
    """The certificate that could not be read is told, not that the server wants TLS."""
    url = make_url(tls_server.create_database().url(driver))
    with tempfile.TemporaryDirectory() as home:
        Path(home).chmod(0o755 if readable else 0o700)
        os.chown(home, NOBODY, NOBODY)
        done = subprocess.run(
            [
                *(sys.executable, "-m", "flask_migrate_sidecar", "--app", "none"),
                *(
                    "--wait-timeout",
                    "0",
                    "--database-url",
                    url.render_as_string(hide_password=False),
                ),
                *("wait", "database"),
            ],
            # Not where the tests were started: a .venv there is of whatever Python made it.
            cwd=tmp_path,
            env={**clean_environment(), "HOME": home},
            preexec_fn=drop_right_to_pass,
            check=False,
            capture_output=True,
            text=True,
        )
    last = json.loads(done.stderr.splitlines()[-1])
    assert done.returncode == last["exit_code"] == (0 if readable else 6), last
    if not readable:
        assert "could not open certificate file" in last["error"]["message"]
        assert "Permission denied" in last["error"]["message"]
        assert "certificate" in last["hint"]
