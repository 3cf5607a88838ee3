"""The locks on real servers, with real processes where a process is what matters."""

import ctypes
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from time import sleep
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, NullPool, create_engine, event, make_url, text
from structlog.testing import capture_logs

from flask_migrate_sidecar.database.connect import Database
from flask_migrate_sidecar.errors import (
    ConfigurationError,
    LockedError,
    RefusedError,
    UnavailableError,
)
from flask_migrate_sidecar.lock.acquire import hold_locks, read_holder
from flask_migrate_sidecar.lock.base import LockTarget
from flask_migrate_sidecar.lock.choose import choose_kind
from flask_migrate_sidecar.lock.lease import LEASE_TABLE, LeaseLock
from flask_migrate_sidecar.lock.watch import Guard
from flask_migrate_sidecar.process.threads import Event, list_running
from servers import MariaDB, PgBouncer, Postgres, Server
from sidecar_runs import DEADLINE, environment_of
from zygote import zygote_of

# Ends a test that fails; what goes well takes a fraction of it on the busiest machine.
CONNECT = 30
# Longer than a busy machine may keep its holder from renewing it.
LEASE = 60
# For a holder that is to notice soon: it renews its lease, and looks at it, every third of it.
SHORT_LEASE = 1.5

# Holds the lock, writes begin and end into the journal, says on stdout what is logged.
MIGRATOR = """
import json, os, sys, time
import structlog
structlog.configure(
    processors=[structlog.processors.JSONRenderer()],
    logger_factory=structlog.PrintLoggerFactory(sys.stdout),
)
from sqlalchemy import make_url
from flask_migrate_sidecar.database.connect import Database
from flask_migrate_sidecar.errors import SidecarError
from flask_migrate_sidecar.lock.acquire import hold_locks
from flask_migrate_sidecar.lock.base import LockTarget
order = json.loads(sys.argv[1])
target = LockTarget(Database("default", make_url(order["url"])), None, "alembic_version")
try:
    with hold_locks(
        [target], kind=order["kind"], timeout=order["timeout"], connect_timeout=30,
        heartbeat=order["heartbeat"], lease=order["lease"],
    ):
        with open(order["journal"], "a") as journal:
            print("begin", os.getpid(), file=journal, flush=True)
            sys.stdin.readline()
            time.sleep(0.2)  # the work, long enough for a rival to be seen
            print("end", os.getpid(), file=journal, flush=True)
except SidecarError as error:
    print(json.dumps({"event": "failed", "message": str(error)}), flush=True)
    sys.exit(error.exit_code)
"""


class Migrator:
    """A process that waits for the lock and holds it until it is told to go on."""

    def __init__(self, order: Mapping[str, object]) -> None:
        """Start the process."""
        (stdin, go), (said, stdout) = os.pipe(), os.pipe()
        self._go, self._said = os.fdopen(go, "w"), os.fdopen(said)
        with os.fdopen(stdin), os.fdopen(stdout, "w"):
            self.process = zygote_of().start(
                Path.cwd(),
                None,
                json.dumps(order),
                env=environment_of({}),
                streams=[stdin, stdout, 2],
                code=MIGRATOR,
            )
        self.lines: list[dict[str, Any]] = []

    def await_event(self, event: str) -> dict[str, Any]:
        """Read what the process says until it says this."""
        for line in self._said:
            self.lines.append(json.loads(line))
            if self.lines[-1]["event"] == event:
                return self.lines[-1]
        raise AssertionError(f"no {event} among {self.lines}")

    def let_go(self) -> None:
        """Let the body end, at once or as soon as it begins."""
        self._go.write("\n")
        self._go.flush()

    def finish(self) -> int:
        """Let the body end, and return the exit code."""
        self.let_go()
        self.lines += [json.loads(line) for line in self._said]
        return self.process.wait(DEADLINE)

    def close(self) -> None:
        """Leave no process behind."""
        self.process.close()
        self._said.close()
        with suppress(BrokenPipeError):
            self._go.close()


def finish_all(migrators: Sequence[Migrator]) -> None:
    """Let all bodies end as soon as they begin, in whichever order they get the lock."""
    for migrator in migrators:
        migrator.let_go()
    assert [migrator.process.wait(DEADLINE) for migrator in migrators] == [0] * len(migrators)


StartMigrator = Callable[..., Migrator]


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Return where migrators write down when they begin and end."""
    return tmp_path / "journal"


@pytest.fixture
def start(journal: Path) -> Iterator[StartMigrator]:
    """Return a function that starts a migrator."""
    started: list[Migrator] = []

    def start(url: str, kind: str = "auto", *, heartbeat: float = 30) -> Migrator:
        order = {"url": url, "kind": kind, "journal": str(journal), "heartbeat": heartbeat}
        started.append(Migrator({**order, "timeout": DEADLINE, "lease": LEASE}))
        return started[-1]

    yield start
    for migrator in started:
        migrator.close()


PLACES = ["psycopg", "psycopg2", "pgbouncer", "pymysql", "mysqldb", "sqlite"]


@pytest.fixture
def url(place: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return a fresh database, by driver and way to it."""
    if place == "sqlite":
        yield f"sqlite:///{tmp_path / 'app.db'}"
        return
    if place == "mysqldb":
        pytest.importorskip("MySQLdb")
    names = {"pgbouncer": "pgbouncer", "pymysql": "mariadb", "mysqldb": "mariadb"}
    server: Server = request.getfixturevalue(names.get(place, "postgres"))
    database = server.create_database()
    yield database.url("psycopg" if place == "pgbouncer" else place)
    server.drop_database(database.name)


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """Return a fresh PostgreSQL database."""
    database = postgres.create_database()
    yield database.url()
    postgres.drop_database(database.name)


everywhere = pytest.mark.parametrize("place", PLACES)
each_kind = pytest.mark.parametrize("kind", ["auto", "table"])
by_network = pytest.mark.parametrize("place", [place for place in PLACES if place != "sqlite"])


def make_target(url: str, *, name: str = "default", schema: str | None = None) -> LockTarget:
    """Name what is locked."""
    return LockTarget(Database(name, make_url(url)), schema, "alembic_version")


def hold(
    *targets: LockTarget, kind: str = "auto", lease: float = LEASE, watch: float = 5
) -> AbstractContextManager[Guard]:
    """Hold locks after a single try, with times that suit a test."""
    return hold_locks(
        targets,
        kind=kind,
        timeout=0,
        connect_timeout=CONNECT,
        heartbeat=30,
        lease=lease,
        watch=watch,
    )


def query(url: str, statement: str) -> list[Any]:
    """Run one statement outside of any transaction."""
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        result = connection.execute(text(statement))
        return list(result) if result.returns_rows else []


def read_journal(journal: Path) -> list[list[str]]:
    """Return the lines that were written, split."""
    return [line.split() for line in journal.read_text().splitlines()]


def assert_one_at_a_time(journal: Path, count: int) -> None:
    """Each begin is followed by the end of the same process."""
    lines = read_journal(journal)
    assert len(lines) == 2 * count
    for begin, end in zip(lines[::2], lines[1::2], strict=True):
        assert (begin[0], end[0]) == ("begin", "end")
        assert begin[1] == end[1]


@everywhere
@each_kind
def test_one_at_a_time(url: str, kind: str, start: StartMigrator, journal: Path) -> None:
    """Any number of migrators may start at once; one works at a time and all end well."""
    finish_all([start(url, kind) for _ in range(6)])
    assert_one_at_a_time(journal, 6)


@pytest.mark.parametrize("kind", ["auto", "table"])
def test_pooled_and_direct_rivals(
    pgbouncer: PgBouncer, kind: str, start: StartMigrator, journal: Path
) -> None:
    """A migrator behind a pooler and one with a connection of its own exclude each other."""
    database = pgbouncer.create_database()
    pooled = database.url()
    direct = make_url(pooled).set(port=pgbouncer.postgres.port)
    urls = [pooled, direct.render_as_string(hide_password=False)] * 3
    finish_all([start(url, kind) for url in urls])
    assert_one_at_a_time(journal, 6)
    pgbouncer.drop_database(database.name)


@each_kind
def test_pooled_lock_is_given_back_at_once(pgbouncer: PgBouncer, kind: str) -> None:
    """Nothing of a lock stays behind on a connection that the pooler keeps."""
    pooled = pgbouncer.create_database().url()
    direct = make_url(pooled).set(port=pgbouncer.postgres.port)
    for url in (pooled, direct.render_as_string(hide_password=False), pooled):
        with hold(make_target(url), kind=kind):
            pass


def test_pooled_waiters_meet_no_errors(pgbouncer: PgBouncer, start: StartMigrator) -> None:
    """A waiter's tries may each reach another backend: none relies on what it left on one."""
    url = pgbouncer.create_database().url()
    with hold(make_target(url)):
        waiters = [start(url, heartbeat=0.001) for _ in range(4)]
        for waiter in waiters * 12:
            waiter.await_event("lock.waiting")
    finish_all(waiters)
    assert all("reason" not in line for waiter in waiters for line in waiter.lines)


@everywhere
@each_kind
def test_waiter_names_the_holder(url: str, kind: str, start: StartMigrator) -> None:
    """Who waits says for whom, with a name that leads to the holder's process."""
    with hold(make_target(url), kind=kind):
        holder = start(url, kind).await_event("lock.waiting")["holder"]
    assert holder["pid"]
    # MariaDB keeps no names of connections unless its performance schema is on.
    if kind == "table" or not url.startswith("mysql"):
        assert holder["application"].endswith(f":{os.getpid()}")
        assert holder["since"].endswith("+00:00")
    else:
        assert holder["client"].startswith("127.0.0.1:")


@everywhere
@each_kind
def test_locked_names_holder_and_kind(url: str, kind: str) -> None:
    """With a timeout of 0 there is one try; the error says what is held, and by whom."""
    with hold(make_target(url), kind=kind) as guard:
        guard.verify()
        with pytest.raises(LockedError) as caught, hold(make_target(url), kind=kind):
            pass
    assert str(caught.value.fields["kind"]) in str(caught.value)
    assert "pid" in str(caught.value)
    assert caught.value.fields["holder"]


@everywhere
@each_kind
def test_kill_lets_the_next_one_in(
    url: str, kind: str, start: StartMigrator, journal: Path
) -> None:
    """A holder that is killed keeps nobody out: at once, or for a lease until it expires."""
    first = start(url, kind)
    first.await_event("lock.acquired")
    second = start(url, kind)
    second.await_event("lock.waiting")
    first.process.send_signal(signal.SIGKILL)
    if kind == "table":
        let_pass(url, LEASE - 1)
    second.await_event("lock.acquired")
    assert second.finish() == 0
    assert read_journal(journal)[-1] == ["end", str(second.process.pid)]


@everywhere
def test_lease_lasts_as_long_as_it_says(url: str) -> None:
    """A lease that is not renewed keeps others out for its seconds, and no longer."""
    with pytest.raises(UnavailableError, match="lost"), hold(make_target(url), kind="table"):
        outlive_lease(url)


def outlive_lease(url: str) -> None:
    """Try to take a lease shortly before it expires, and take it over when it has."""
    let_pass(url, LEASE * 0.9)
    with pytest.raises(LockedError), hold(make_target(url), kind="table"):
        pass
    let_pass(url, LEASE * 0.1)
    with hold(make_target(url), kind="table"):
        pass


# <linux/tcp.h>; <asm-generic/unistd.h>.
TCP_REPAIR, PIDFD_GETFD = 19, 438


def drop(pid: int, port: int) -> None:
    """Kill a process, and let its connections to a port vanish as those of a node that is gone.

    In repair mode the kernel sends nothing when a socket is closed.
    """
    inodes = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[2].partition(":")[2], 16) == port:
            inodes.add(f"socket:[{fields[9]}]")
    number = os.pidfd_open(pid)
    sockets = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        if str(path.readlink()) in inodes:
            descriptor = ctypes.CDLL(None, use_errno=True).syscall(
                PIDFD_GETFD, number, int(path.name), 0
            )
            sockets.append(socket.socket(fileno=descriptor))
    os.close(number)
    assert sockets
    try:
        for one in sockets:
            one.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    except PermissionError:
        pytest.skip("this machine does not let us drop a connection")
    os.kill(pid, signal.SIGKILL)
    for one in sockets:
        one.close()


@pytest.mark.timeout(150)
@pytest.mark.parametrize("place", ["psycopg", "psycopg2"])
def test_node_that_vanishes_lets_the_next_one_in(
    url: str, start: StartMigrator, postgres: Postgres
) -> None:
    """A holder that is gone without a word keeps its lock for half a minute, not for two hours."""
    first = start(url)
    first.await_event("lock.acquired")
    second = start(url)
    second.await_event("lock.waiting")
    drop(first.process.pid, postgres.port)
    second.await_event("lock.acquired")
    assert second.finish() == 0


@everywhere
@each_kind
def test_given_back_after_an_exception(url: str, kind: str) -> None:
    """The lock is given back on every way out, an interruption's too."""
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error), hold(make_target(url), kind=kind):
            raise error
    with hold(make_target(url), kind=kind):
        pass


def end_holder(url: str, lost: Event | None = None) -> None:
    """End the session that holds the lock, and wait until that is noticed if asked to."""
    _kind, holder = read_holder(make_target(url), kind="auto", connect_timeout=CONNECT)
    assert holder
    command = "KILL {}" if url.startswith("mysql") else "SELECT pg_terminate_backend({})"
    query(url, command.format(holder.pid))
    assert lost is None or lost.wait(DEADLINE)


def let_pass(url: str, seconds: float) -> None:
    """Let time pass for a lease, which nobody renews any more."""
    query(url, f"UPDATE {LEASE_TABLE} SET expires_ms = expires_ms - {round(seconds * 1000)}")


def steal_lease(url: str, lost: Event) -> None:
    """Take the lease over as another migrator would, and wait until that is noticed."""
    query(url, f"UPDATE {LEASE_TABLE} SET token = 'somebody else'")
    assert lost.wait(DEADLINE)


def fail_after(happening: Callable[[str], None], url: str) -> None:
    """Fail as a migration would, after something has happened."""
    happening(url)
    raise ZeroDivisionError


@by_network
def test_lost_connection_is_no_success(url: str) -> None:
    """If the connection that holds the lock ends, the run does not end as a success."""
    with pytest.raises(UnavailableError, match="lost"), hold(make_target(url)):
        end_holder(url)


@by_network
def test_loss_is_noticed_while_the_body_runs(url: str) -> None:
    """The guard tells of a lost lock while the migration still runs."""
    with pytest.raises(UnavailableError), hold(make_target(url), watch=0.1) as guard:
        end_holder(url, guard.lost)


def test_error_of_the_body_wins_over_a_lost_lock(postgres_url: str) -> None:
    """An error of the migration is what is reported, whatever became of the lock."""
    with pytest.raises(ZeroDivisionError), hold(make_target(postgres_url)):
        fail_after(end_holder, postgres_url)


@pytest.mark.parametrize("server_name", ["postgres", "mariadb"])
def test_server_restart_is_no_success(server_name: str, request: pytest.FixtureRequest) -> None:
    """A server that restarts forgets the lock: the run does not end as a success."""
    server: Server = request.getfixturevalue(server_name)
    url = server.create_database().url()
    with pytest.raises(UnavailableError, match="lost"), hold(make_target(url)):
        server.restart()
    with hold(make_target(url)):
        pass


def test_waiter_outlives_a_restart(postgres: Postgres, start: StartMigrator) -> None:
    """Who waits while the server restarts goes on waiting."""
    url = postgres.create_database().url()
    with suppress(UnavailableError), hold(make_target(url)):
        waiter = start(url)
        waiter.await_event("lock.waiting")
        postgres.restart()
        waiter.await_event("lock.acquired")
    assert waiter.finish() == 0


def set_limits(postgres: Postgres, url: str) -> None:
    """Let the server end what idles, or runs, for longer than a second."""
    name = make_url(url).database
    version = query(url, "SHOW server_version_num")[0][0]
    limits = ["idle_in_transaction_session_timeout", "idle_session_timeout"]
    if int(version) >= 170000:
        limits.append("transaction_timeout")
    postgres.execute(*(f"ALTER DATABASE \"{name}\" SET {limit} = '1s'" for limit in limits))


@pytest.mark.parametrize("server_name", ["postgres15", "postgres18"])
def test_time_limits_do_not_end_the_lock(server_name: str, request: pytest.FixtureRequest) -> None:
    """A database's limits on idle sessions and long transactions do not reach the lock."""
    server: Postgres = request.getfixturevalue(server_name)
    url = server.create_database().url()
    set_limits(server, url)
    with hold(make_target(url)) as guard:
        assert not guard.lost.wait(2.5)


def test_mysql_idle_limit_does_not_end_the_lock(mariadb: MariaDB) -> None:
    """A server that closes idle connections early leaves the lock's alone."""
    url = mariadb.create_database().url()
    mariadb.execute("SET GLOBAL wait_timeout = 1")
    try:
        with hold(make_target(url)) as guard:
            assert not guard.lost.wait(2.5)
    finally:
        mariadb.execute("SET GLOBAL wait_timeout = 28800")


@everywhere
def test_lease_lives_on_while_it_is_renewed(url: str) -> None:
    """Heartbeats keep a lease beyond its expiry; nobody else gets it meanwhile."""
    with hold(make_target(url), kind="table", lease=3) as guard:
        assert not guard.lost.wait(4)
        with pytest.raises(LockedError), hold(make_target(url), kind="table"):
            pass


@everywhere
def test_lost_lease_is_no_success(url: str) -> None:
    """A lease that another one has taken over is noticed by the next heartbeat."""
    with (
        capture_logs() as logs,
        pytest.raises(UnavailableError, match="lost"),
        hold(make_target(url), kind="table", lease=SHORT_LEASE) as guard,
    ):
        steal_lease(url, guard.lost)
    said = [line["event"] for line in logs]
    assert "lock.lost" in said
    assert "lock.released" not in said


@everywhere
def test_lease_is_renewed_long_before_its_end(url: str) -> None:
    """A holder that is late for once has not lost its lease: there is time for another try."""
    look = f"SELECT expires_ms FROM {LEASE_TABLE}"
    with hold(make_target(url), kind="table", lease=9):
        [(first,)] = query(url, look)
        while (found := query(url, look)) == [(first,)]:
            sleep(0.1)
        renewed = found[0][0] - first
    # It was renewed so long after the first time, of the nine seconds that it has.
    assert renewed < 6_000


@everywhere
def test_expired_lease_is_taken_over_at_once(url: str) -> None:
    """A lease that expired before the run needs no wait, not even with a timeout of 0."""
    with hold(make_target(url), kind="table"):
        pass
    far = "'somebody else', expires_ms = 0"
    query(url, f"UPDATE {LEASE_TABLE} SET token = {far}")
    assert read_holder(make_target(url), kind="table", connect_timeout=CONNECT)[1] is None
    with hold(make_target(url), kind="table"):
        pass


def test_lease_outlives_a_restart(postgres: Postgres) -> None:
    """A lease is in the table: a restart shorter than its expiry costs nothing."""
    url = postgres.create_database().url()
    with hold(make_target(url), kind="table", lease=60) as guard:
        postgres.restart()
        guard.verify()


def test_two_spellings_are_locked_once(postgres: Postgres, pgbouncer: PgBouncer) -> None:
    """Binds that reach one database in different ways do not wait for each other."""
    database = pgbouncer.create_database()
    pooled = make_url(database.url())
    direct = pooled.set(port=postgres.port)
    named = direct.set(host="localhost", drivername="postgresql+psycopg2")
    urls = [url.render_as_string(hide_password=False) for url in (pooled, direct, named)]
    targets = [make_target(url, name=f"bind{n}") for n, url in enumerate(urls)]
    for kind in ("advisory", "table"):
        with hold(*targets, kind=kind) as guard:
            assert len(guard.watches) == 1
    postgres.drop_database(database.name)


def test_two_spellings_of_a_sqlite_file(tmp_path: Path) -> None:
    """A link to a database is that database; so is a URI of it."""
    file = tmp_path / "app.db"
    (tmp_path / "link.db").symlink_to(file)
    urls = [f"sqlite:///{file}", f"sqlite:///{tmp_path}/link.db", f"sqlite:///file:{file}?uri=true"]
    targets = [make_target(url, name=f"bind{n}") for n, url in enumerate(urls)]
    with hold(*targets) as guard:
        assert len(guard.watches) == 1


def test_mariadb_databases_of_one_server_are_apart(mariadb: MariaDB) -> None:
    """GET_LOCK's names are the server's; another database does not wait all the same."""
    urls = [mariadb.create_database().url() for _ in range(2)]
    targets = [make_target(url, name=f"bind{n}") for n, url in enumerate([*urls, urls[0]])]
    with hold(*targets) as guard:
        assert len(guard.watches) == 2


@pytest.mark.parametrize(
    ("place", "kind"),
    [*((place, "table") for place in PLACES), *((p, "advisory") for p in PLACES if p != "sqlite")],
)
def test_other_schema_does_not_wait(url: str, kind: str) -> None:
    """Services that share a database but not a schema do not wait for each other."""
    one, two = (make_target(url, schema=schema) for schema in ("one", "two"))
    with hold(one, kind=kind), hold(two, kind=kind):
        pass


@each_kind
def test_waiters_hold_nothing(
    postgres: Postgres, postgres_url: str, kind: str, start: StartMigrator
) -> None:
    """A waiter has at most one connection, and none stays in a transaction between two tries."""
    look = (
        "SELECT pid, xact_start FROM pg_stat_activity"
        f" WHERE datname = '{make_url(postgres_url).database}'"
        " AND application_name ~ '^flask-migrate-sidecar'"
        f" AND application_name !~ '{os.getpid()}$'"
    )
    with hold(make_target(postgres_url), kind=kind):
        waiters = [start(postgres_url, kind) for _ in range(5)]
        for waiter in waiters:
            waiter.await_event("lock.waiting")
        seen: set[int] = set()
        idle: set[int] = set()
        looks = 0
        while looks < 50 or len(idle) < 5 or idle != seen:
            sessions = query(postgres.admin_url, look)
            assert len(sessions) <= 5
            seen |= {pid for pid, _ in sessions}
            idle |= {pid for pid, begun in sessions if begun is None}
            looks += 1
    assert idle == seen
    finish_all(waiters)


@pytest.mark.parametrize("server_name", ["postgres15", "postgres18"])
def test_concurrent_index_beside_holder_and_waiters(
    server_name: str, request: pytest.FixtureRequest, start: StartMigrator
) -> None:
    """CREATE INDEX CONCURRENTLY waits for snapshots: neither holder nor waiters keep one."""
    server: Postgres = request.getfixturevalue(server_name)
    url = server.create_database().url()
    query(url, "CREATE TABLE shop AS SELECT generate_series(1, 2000) AS id")
    with hold(make_target(url), watch=0):
        waiters = [start(url) for _ in range(3)]
        for waiter in waiters:
            waiter.await_event("lock.waiting")
        build = make_url(url).update_query_dict({"options": "-cstatement_timeout=120s"})
        engine = create_engine(build, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            for _ in range(50):
                connection.exec_driver_sql("CREATE INDEX CONCURRENTLY shop_id ON shop (id)")
                connection.exec_driver_sql("DROP INDEX shop_id")
    finish_all(waiters)


def test_holder_keeps_no_snapshot(postgres: Postgres, postgres_url: str) -> None:
    """A held lock is no reason for vacuum or an index build to wait, not even for a moment.

    An index build waits for the end of a transaction whose snapshot it has once seen: beside
    `SELECT 1` in a loop one build in fifty never ended.
    """
    with hold(make_target(postgres_url), watch=0.01):
        _kind, holder = read_holder(make_target(postgres_url), kind="auto", connect_timeout=CONNECT)
        assert holder
        look = (
            "SELECT query, backend_xmin, backend_xid FROM pg_stat_activity"
            f" WHERE pid = {holder.pid}"
        )
        # The last query once the lock is watched; SET takes no snapshot, a SELECT does.
        watched = ("SET LOCAL idle_in_transaction_session_timeout = 0", None, None)
        seen, looks = set(), 0
        while looks < 50 or watched not in seen:
            seen.add(tuple(query(postgres.admin_url, look)[0]))
            looks += 1
    assert {row[1:] for row in seen} == {(None, None)}


def test_no_right_to_create_the_lease_table(postgres15: Postgres) -> None:
    """Without the right to create the lease table the error names right and table."""
    database = postgres15.create_database()
    location = make_url(postgres15.admin_url).set(database=database.name)
    url = make_url(database.url())
    postgres15.execute(
        "DROP ROLE IF EXISTS reader", f"CREATE ROLE reader LOGIN PASSWORD '{url.password}'"
    )
    admin = location.render_as_string(hide_password=False)
    query(admin, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    reader = url.set(username="reader").render_as_string(hide_password=False)
    with (
        pytest.raises(RefusedError, match=LEASE_TABLE) as caught,
        hold(make_target(reader), kind="table"),
    ):
        pass
    assert "CREATE" in str(caught.value.hint)
    assert str(url.password) not in str(caught.value)
    # A table that an administrator made is enough.
    with hold(make_target(database.url()), kind="table"):
        pass
    query(database.url(), f"GRANT SELECT, INSERT, UPDATE ON {LEASE_TABLE} TO reader")
    with hold(make_target(reader), kind="table"):
        pass
    postgres15.drop_database(database.name)


def test_no_right_on_mariadb(mariadb: MariaDB) -> None:
    """The same on MariaDB, where rights are told by number."""
    database = mariadb.create_database()
    url = make_url(database.url())
    mariadb.execute(
        f"CREATE OR REPLACE USER reader@'%' IDENTIFIED BY '{url.password}'",
        f"GRANT SELECT ON {database.name}.* TO reader@'%'",
    )
    reader = url.set(username="reader").render_as_string(hide_password=False)
    with (
        pytest.raises(RefusedError, match=LEASE_TABLE),
        hold(make_target(reader), kind="table"),
    ):
        pass


def test_foreign_holder_on_mariadb_is_named_as_far_as_rights_reach(mariadb: MariaDB) -> None:
    """Without the PROCESS right another user's connection id is still told."""
    database = mariadb.create_database()
    url = make_url(database.url())
    mariadb.execute(
        f"CREATE OR REPLACE USER other@'%' IDENTIFIED BY '{url.password}'",
        f"GRANT ALL ON {database.name}.* TO other@'%'",
    )
    other = url.set(username="other").render_as_string(hide_password=False)
    with hold(make_target(database.url())):
        _kind, holder = read_holder(make_target(other), kind="auto", connect_timeout=CONNECT)
    assert holder
    assert holder.describe().keys() == {"pid"}


@everywhere
@each_kind
def test_looking_takes_nothing(url: str, kind: str) -> None:
    """Whether a lock is held is read without taking it, and without making anything."""
    target = make_target(url)
    assert read_holder(target, kind=kind, connect_timeout=CONNECT)[1] is None
    with hold(target, kind=kind):
        found, holder = read_holder(target, kind=kind, connect_timeout=CONNECT)
        assert kind in {found, "auto"}
        assert holder
    assert read_holder(target, kind=kind, connect_timeout=CONNECT)[1] is None


def test_looking_makes_no_file(tmp_path: Path) -> None:
    """A look at a SQLite lock creates neither database nor lock file."""
    target = make_target(f"sqlite:///{tmp_path / 'app.db'}")
    read_holder(target, kind="auto", connect_timeout=CONNECT)
    assert list(tmp_path.iterdir()) == []


def test_card_of_a_killed_process_is_no_holder(tmp_path: Path, start: StartMigrator) -> None:
    """What a killed holder wrote into the lock file does not count as held."""
    url = f"sqlite:///{tmp_path / 'app.db'}"
    migrator = start(url)
    migrator.await_event("lock.acquired")
    assert read_holder(make_target(url), kind="auto", connect_timeout=CONNECT)[1]
    migrator.process.kill()
    migrator.process.wait(DEADLINE)
    assert (tmp_path / "app.db.lock").stat().st_size
    assert read_holder(make_target(url), kind="auto", connect_timeout=CONNECT)[1] is None


def test_lock_file_stays(tmp_path: Path) -> None:
    """The lock file is never unlinked: one could hold the old one, another the new."""
    with hold(make_target(f"sqlite:///{tmp_path / 'app.db'}")):
        inode = (tmp_path / "app.db.lock").stat().st_ino
    assert (tmp_path / "app.db.lock").stat().st_ino == inode


def test_removed_lock_file_is_no_success(tmp_path: Path) -> None:
    """A lock file that somebody removes excludes nobody any more, and that is noticed."""
    target = make_target(f"sqlite:///{tmp_path / 'app.db'}")
    with pytest.raises(UnavailableError, match="lost"), hold(target):
        (tmp_path / "app.db.lock").unlink()


@pytest.mark.parametrize("folder", ["missing", "/proc"])
def test_folder_that_takes_no_lock_file(folder: str, tmp_path: Path) -> None:
    """A folder that is missing or not writable is a refusal."""
    url = f"sqlite:///{tmp_path / folder / 'app.db'}"
    with pytest.raises(RefusedError), hold(make_target(url)):
        pass


@pytest.mark.parametrize(
    ("kind", "url"), [("advisory", "sqlite:///app.db"), ("file", "postgresql+psycopg://h/d")]
)
def test_unfit_kind(kind: str, url: str) -> None:
    """A kind that the database cannot have is a mistake in the configuration."""
    with pytest.raises(ConfigurationError, match=kind), hold(make_target(url), kind=kind):
        pass


@pytest.mark.parametrize("driver", ["pymysql", "mysqldb"])
def test_lease_that_another_one_takes_between(driver: str, mariadb: MariaDB) -> None:
    """A row that was changed since it was read is another one's lease (MariaDB 11.6 and later)."""
    pytest.importorskip({"mysqldb": "MySQLdb"}.get(driver, driver))
    database = mariadb.create_database()
    target = make_target(database.url(driver))
    first, second = (LeaseLock(target, lease=600, connect_timeout=30) for _ in range(2))
    assert first.try_acquire()
    first.release()

    others = [second]

    def take_it(_connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("UPDATE") and others:
            assert others.pop().try_acquire()

    mariadb.execute("SET GLOBAL innodb_snapshot_isolation = ON")
    event.listen(Engine, "before_cursor_execute", take_it)
    try:
        assert not first.try_acquire()
        assert not others
    finally:
        event.remove(Engine, "before_cursor_execute", take_it)
        mariadb.execute("SET GLOBAL innodb_snapshot_isolation = OFF")
        second.release()
        first.release()
    mariadb.drop_database(database.name)


def test_mariadb_without_galera_has_get_lock(mariadb: MariaDB) -> None:
    """A server that is no cluster is locked by name."""
    database = Database("default", make_url(mariadb.admin_url))
    assert choose_kind("auto", database, 5)[0] == "advisory"


def test_lock_file_says_nothing_of_who_is_gone(tmp_path: Path) -> None:
    """What is left of a lock that was given back is an empty file."""
    with hold(make_target(f"sqlite:///{tmp_path / 'app.db'}")):
        assert str(os.getpid()) in (tmp_path / "app.db.lock").read_text()
    assert (tmp_path / "app.db.lock").read_bytes() == b""


def test_none_leaves_nothing_behind(tmp_path: Path) -> None:
    """With `none`, and in memory, there is nothing to hold and nothing to lose."""
    for url, kind in ((f"sqlite:///{tmp_path / 'a.db'}", "none"), ("sqlite://", "auto")):
        with hold(make_target(url), kind=kind) as guard:
            assert isinstance(guard, Guard)
            assert guard.watches == []
    assert list(tmp_path.iterdir()) == []


def test_watch_ends_with_the_lock(tmp_path: Path) -> None:
    """No thread of ours outlives the lock."""
    with hold(make_target(f"sqlite:///{tmp_path / 'app.db'}")):
        assert "lock-watch" in list_running()
    assert "lock-watch" not in list_running()
