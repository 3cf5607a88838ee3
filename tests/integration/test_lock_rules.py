"""What the locks promise where several databases, version tables or lock files are in play."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import NullPool, create_engine, make_url
from structlog.testing import capture_logs

from conftest import RunCommand
from flask_migrate_sidecar.database.connect import Database
from flask_migrate_sidecar.errors import LockedError
from flask_migrate_sidecar.lock import lease
from flask_migrate_sidecar.lock.acquire import hold_locks, read_holder
from flask_migrate_sidecar.lock.base import LockLostError, LockTarget
from flask_migrate_sidecar.lock.lease import LEASE_TABLE, LeaseLock
from flask_migrate_sidecar.lock.mysql import MysqlLock
from flask_migrate_sidecar.lock.sqlite import FileLock
from flask_migrate_sidecar.lock.watch import Guard
from following import FollowedRun
from racing import read_runs, write_app
from servers import MariaDB, Postgres, render_url

QUICK = "    pass"
STAMP = ("db", "stamp", "head")
# Migrates each database of the application.
EACH = """
def run_each():
    global get_engine
    for engine in migrate.db.engines.values():
        get_engine = lambda: engine
        run_online()


set_up_logging()
"""
# Blocks until the test opens the other end.
BLOCKED = '    print("begun")\n    open("fifo").close()'


@contextmanager
def held(
    url: str,
    *,
    kind: str = "auto",
    table: str = "alembic_version",
    lease: float = 30,
    connect_timeout: float = 30,
) -> Iterator[Guard]:
    """Hold the lock of a database after a single try."""
    target = LockTarget(Database("default", make_url(url)), None, table)
    with hold_locks(
        [target],
        kind=kind,
        timeout=0,
        connect_timeout=connect_timeout,
        heartbeat=30,
        lease=lease,
    ) as guard:
        yield guard


def let_block(app: Path) -> None:
    """Make what a revision of an application waits for."""
    os.mkfifo(app / "fifo")


def let_go(app: Path) -> None:
    """Let the revision go on; it need not be there any more."""
    os.close(os.open(app / "fifo", os.O_WRONLY | os.O_NONBLOCK))


# Several databases


def test_several_locks_have_one_order(
    tmp_path: Path, create_database_url: Callable[[], str]
) -> None:
    """Runs that list two databases in opposite orders take their locks in the same one."""
    app = write_app(tmp_path / "app", [QUICK])
    env_py = app / "migrations" / "env.py"
    head, _, tail = env_py.read_text().rpartition("set_up_logging()\n")
    env_py.write_text(f"{head}{EACH}{tail.replace('run_online()', 'run_each()')}")
    urls = {"default": create_database_url(), "second": create_database_url()}
    env = {"DATABASE_URL": urls["default"], "SECOND_URL": urls["second"]}
    with FollowedRun(app, *STAMP, env=env) as run:
        assert run.finish() == 0, run.last
        first, second = [urls[line["database"]] for line in run.named("lock.acquired")]

    options = ("--lock-timeout", "60s")
    with held(first):
        one = FollowedRun(app, *options, *STAMP, env={"DATABASE_URL": first, "SECOND_URL": second})
        other = FollowedRun(
            app, *options, *STAMP, env={"DATABASE_URL": second, "SECOND_URL": first}
        )
        one.await_event("lock.waiting")
        other.await_event("lock.waiting")
        # Whatever it has by now, it keeps.
        other.process.send_signal(signal.SIGSTOP)
    assert one.finish() == 0, one.last
    other.process.send_signal(signal.SIGCONT)
    assert other.finish() == 0, other.last


def test_lock_of_two_names_tells_both(tmp_path: Path) -> None:
    """A lock that covers several databases says so, for a reader looks for each of them."""
    (tmp_path / "link").symlink_to(tmp_path)
    urls = {"default": f"sqlite:///{tmp_path}/x.db", "second": f"sqlite:///{tmp_path}/link/x.db"}
    targets = [LockTarget(Database(name, make_url(urls[name])), None, "v") for name in urls]
    with (
        capture_logs() as logs,
        hold_locks(targets, kind="auto", timeout=0, connect_timeout=1, heartbeat=30) as guard,
    ):
        assert len(guard.watches) == 1
    assert [line["covers"] for line in logs] == [["default", "second"]] * 2


# Version tables


@pytest.fixture
def app_of_tables(tmp_path: Path) -> Path:
    """Write an application whose version table a variable names, and whose upgrade waits."""
    app = write_app(tmp_path / "app", [BLOCKED])
    source = (app / "app.py").read_text()
    table = 'Migrate(app, db, version_table=os.environ["VERSION_TABLE"])'
    (app / "app.py").write_text(source.replace("Migrate(app, db)", table))
    let_block(app)
    return app


@pytest.mark.parametrize("kind", ["advisory", "table"])
@pytest.mark.parametrize("dialect", ["postgresql", "mariadb"], indirect=True)
def test_version_table_is_part_of_the_key(
    app_of_tables: Path, database_url: str, kind: str, launch: RunCommand
) -> None:
    """Apps that share a database wait for each other only if they share the version table."""
    env = {"DATABASE_URL": database_url, "MIGRATE_LOCK": kind}
    ours, others = {**env, "VERSION_TABLE": "ours"}, {**env, "VERSION_TABLE": "others"}
    with FollowedRun(app_of_tables, "db", "upgrade", env=ours) as holder:
        holder.await_event("output", text="begun")
        options = ("--lock-timeout", "0", *STAMP)
        codes = [launch(app_of_tables, *options, env=env).returncode for env in (others, ours)]
        let_go(app_of_tables)
        assert holder.finish() == 0, str(holder.last)
    assert codes == [0, 7]


@pytest.mark.parametrize(
    ("dialect", "kind"),
    [
        ("postgresql", "advisory"),
        ("mariadb", "advisory"),
        ("postgresql", "table"),
        ("mariadb", "table"),
        ("sqlite", "table"),
    ],
    indirect=["dialect"],
)
def test_locks_of_two_version_tables(database_url: str, kind: str) -> None:
    """The lock of one version table is free while that of another one is held."""
    with held(database_url, kind=kind, table="ours"):
        with held(database_url, kind=kind, table="others"):
            pass
        with pytest.raises(LockedError), held(database_url, kind=kind, table="ours"):
            pass


# Behind the lock


def test_relative_target_counts_from_before_the_lock(
    tmp_path: Path, database_url: str, launch: RunCommand
) -> None:
    """Of two runs that want one revision more, the one that waited finds it done: 0."""
    app = write_app(tmp_path / "app", [BLOCKED, QUICK])
    let_block(app)
    env = {"DATABASE_URL": database_url}
    done = launch(app, "db", "upgrade", "r1", env=env)
    assert done.returncode == 0, done.stderr
    with FollowedRun(app, "db", "upgrade", "+1", env=env) as holder:
        holder.await_event("output", text="begun")
        with FollowedRun(app, "db", "upgrade", "+1", env=env) as waiter:
            waiter.await_event("lock.waiting")
            let_go(app)
            assert (holder.finish(), waiter.finish()) == (0, 0)
    assert (holder.last["applied"], waiter.last["applied"]) == (["r2"], [])
    assert read_runs(database_url) == [("r1", "up"), ("r2", "up")]


def test_part_of_the_way_is_gone_on_from(
    tmp_path: Path, database_url: str, launch: RunCommand
) -> None:
    """What a holder had done before it ended is not done again, and the rest is."""
    app = write_app(tmp_path / "app", [QUICK, QUICK])
    env = {"DATABASE_URL": database_url}
    done = launch(app, "db", "upgrade", "r1", env=env)
    assert done.returncode == 0, done.stderr
    with ExitStack() as holder:
        holder.enter_context(held(database_url))
        waiter = FollowedRun(app, "db", "upgrade", env=env)
        waiter.await_event("lock.waiting")
        part = launch(app, "--lock", "none", "db", "upgrade", "r2", env=env)
        assert part.returncode == 0, part.stderr
    assert waiter.finish() == 0, waiter.last
    assert waiter.last["applied"] == ["r3"]
    assert read_runs(database_url) == [("r1", "up"), ("r2", "up"), ("r3", "up")]


# A lock that is lost in the middle


LOSING = {
    "postgresql": """\
    op.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
""",
    "mariadb": """\
    mine = "db = DATABASE() AND id <> CONNECTION_ID()"
    query = f"SELECT id FROM information_schema.processlist WHERE {mine}"
    for (session,) in op.get_bind().exec_driver_sql(query).all():
        op.execute(f"KILL {session}")
""",
    "sqlite": """\
    import pathlib
    pathlib.Path(op.get_bind().engine.url.database + ".lock").unlink()
""",
}


def test_no_revision_runs_without_the_lock(tmp_path: Path, dialect: str, database_url: str) -> None:
    """A lock that is lost while a revision runs keeps the next one from running: 5."""
    app = write_app(tmp_path / "app", [LOSING[dialect], QUICK])
    with FollowedRun(app, "db", "upgrade", env={"DATABASE_URL": database_url}) as run:
        assert run.finish() == 5, run.last
    assert run.last["error"]["type"] == "LockLostError", run.last
    assert [line["revision"] for line in run.named("migration.applied")] == ["r1", "r2"]
    if dialect != "postgresql":
        assert read_runs(database_url) == [("r1", "up"), ("r2", "up")]
    assert run.last["kept"] == ([] if dialect == "postgresql" else ["r1", "r2"])
    # It is no revision that has failed.
    assert "revision" not in run.last


FOREVER = """\
    for number in range(2_000):
        op.execute(f"UPDATE ran SET direction = 'at {number}' WHERE revision = 'r1'")
        time.sleep(0.05)
"""


def test_no_statement_runs_without_the_lock(
    tmp_path: Path, dialect: str, database_url: str
) -> None:
    """A revision that lost its lock ends at its next statement, and not at its own end."""
    app = write_app(tmp_path / "app", [LOSING[dialect] + FOREVER])
    with FollowedRun(app, "db", "upgrade", env={"DATABASE_URL": database_url}) as run:
        assert run.finish() == 5, run.last
    assert run.last["error"]["type"] == "LockLostError", run.last
    assert run.last["revision"] == "r2"


def test_failure_behind_a_lost_lock_is_its_loss(
    tmp_path: Path, dialect: str, database_url: str
) -> None:
    """What a rival did to the version table is no fault of the history: 5, and run again."""
    rival = '    op.execute("DELETE FROM alembic_version")\n'
    app = write_app(tmp_path / "app", [LOSING[dialect] + rival])
    with FollowedRun(app, "db", "upgrade", env={"DATABASE_URL": database_url}) as run:
        assert run.finish() == 5, run.last
    assert run.last["error"]["type"] == "LockLostError", run.last


# Lock files


@pytest.fixture
def file_locks(tmp_path: Path) -> Iterator[Callable[[], FileLock]]:
    """Return a function that makes another migrator's lock of the same file."""
    target = LockTarget(Database("default", make_url(f"sqlite:///{tmp_path}/x.db")), None, "v")
    made: list[FileLock] = []

    def make() -> FileLock:
        made.append(FileLock(target, interval=5))
        return made[-1]

    yield make
    for lock in made:
        lock.release()


def test_waiter_does_not_get_an_unlinked_lock_file(
    tmp_path: Path, file_locks: Callable[[], FileLock]
) -> None:
    """A waiter that has the removed file open does not take that for the lock of the new one."""
    holder, waiter, newcomer = file_locks(), file_locks(), file_locks()
    assert holder.try_acquire()
    assert not waiter.try_acquire()
    (tmp_path / "x.db.lock").unlink()
    assert newcomer.try_acquire()
    holder.release()
    # Free, but of no use: the newcomer holds the one that the next migrator opens.
    assert not waiter.try_acquire()
    assert not waiter.try_acquire()
    newcomer.release()
    assert waiter.try_acquire()
    waiter.check()


def test_holder_of_a_replaced_lock_file_has_lost_it(
    tmp_path: Path, file_locks: Callable[[], FileLock]
) -> None:
    """A lock file that was removed and made anew by another one excludes nobody any more."""
    holder, newcomer = file_locks(), file_locks()
    assert holder.try_acquire()
    holder.check()
    (tmp_path / "x.db.lock").unlink()
    assert newcomer.try_acquire()
    with pytest.raises(LockLostError, match="replaced"):
        holder.check()


FORKING = """
import os, sys
from sqlalchemy import make_url
from flask_migrate_sidecar.database.connect import Database
from flask_migrate_sidecar.lock.base import LockTarget
from flask_migrate_sidecar.lock.sqlite import FileLock

target = LockTarget(Database("default", make_url(sys.argv[1])), None, "v")
holder, next_one = FileLock(target, interval=5), FileLock(target, interval=5)
assert holder.try_acquire()
reading, writing = os.pipe()
if os.fork() == 0:
    os.close(writing)
    os.read(reading, 1)  # until the parent ends
    os._exit(0)
holder.release()
assert next_one.try_acquire()
"""


def test_child_does_not_keep_the_lock_of_its_parent(tmp_path: Path) -> None:
    """A process that a revision forks has the lock file open too, and holds nothing by that."""
    url = f"sqlite:///{tmp_path}/x.db"
    subprocess.run([sys.executable, "-c", FORKING, url], check=True)


def test_removed_lock_file_is_told_at_once(tmp_path: Path) -> None:
    """The guard knows of the loss at the next look, for the runner to ask it."""
    target = LockTarget(Database("default", make_url(f"sqlite:///{tmp_path}/x.db")), None, "v")
    with (
        suppress(LockLostError),
        hold_locks(
            [target], kind="auto", timeout=0, connect_timeout=1, heartbeat=30, watch=0.05
        ) as guard,
    ):
        assert not guard.lost.is_set()
        (tmp_path / "x.db.lock").unlink()
        assert guard.lost.wait(60)


# Locks that the server takes for somebody else's


class ForgetfulLock(MysqlLock):
    """A lock whose connection comes to another session, as behind a router."""

    def forget(self) -> None:
        """Lose the lock, but not the connection."""
        self._with_connection(lambda it: it.exec_driver_sql("DO RELEASE_ALL_LOCKS()"))


def test_lock_that_nobody_holds_is_not_ours(mariadb: MariaDB) -> None:
    """A connection that answers is not enough: the server must say that the lock is its."""
    database = mariadb.create_database()
    target = LockTarget(Database("default", make_url(database.url())), None, "v")
    lock = ForgetfulLock(target, interval=5, connect_timeout=30)
    assert lock.try_acquire()
    lock.check()
    lock.forget()
    with pytest.raises(LockLostError, match="another connection"):
        lock.check()
    lock.release()
    mariadb.drop_database(database.name)


# Leases


def test_lease_outlives_a_migration_that_keeps_the_file_locked(tmp_path: Path) -> None:
    """SQLite lets nobody renew a lease while a migration writes, and nobody take it either."""
    url = f"sqlite:///{tmp_path}/x.db"
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    # A renewal that gives up soon, several times while the lease lasts.
    holding = held(url, kind="table", lease=3, connect_timeout=0.2)
    with holding as guard, engine.connect() as migration:
        migration.exec_driver_sql("BEGIN EXCLUSIVE")
        assert not guard.lost.wait(5)
        migration.exec_driver_sql("COMMIT")
        guard.verify()
        with pytest.raises(LockedError), held(url, kind="table"):
            pass


# Names


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_holder_has_our_name_whatever_the_url_says(driver: str, postgres: Postgres) -> None:
    """A name that the application gives to its connections leads nobody to the holder."""
    database = postgres.create_database()
    query = {"application_name": "shop"}
    url = render_url(make_url(database.url(driver)).update_query_dict(query))
    target = LockTarget(Database("default", make_url(url)), None, "alembic_version")
    with held(url):
        _held, holder = read_holder(target, kind="auto", connect_timeout=30)
    assert holder
    assert str(holder.application).endswith(f":{os.getpid()}")
    postgres.drop_database(database.name)


def test_renewal_leaves_the_lease_of_another_one_alone(tmp_path: Path) -> None:
    """A lease that another one took over is lost, and not renewed for it."""
    url = f"sqlite:///{tmp_path}/x.db"
    target = LockTarget(Database("default", make_url(url)), None, "v")
    lock = LeaseLock(target, lease=30, connect_timeout=1)
    assert lock.try_acquire()
    lock.check()
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE {LEASE_TABLE} SET token = 'other', expires_ms = 1")
    with pytest.raises(LockLostError, match="taken over"):
        lock.check()
    lock.release()
    with engine.begin() as connection:
        row = connection.exec_driver_sql(f"SELECT token, expires_ms FROM {LEASE_TABLE}").one()
    assert tuple(row) == ("other", 1)


def test_lease_that_cannot_be_renewed_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A renewal may fail: the lease is lost when it has expired since the last good one."""
    now = [0.0]
    monkeypatch.setattr(lease, "time", SimpleNamespace(monotonic=lambda: now[0]))
    url = f"sqlite:///{tmp_path}/x.db"
    target = LockTarget(Database("default", make_url(url)), None, "v")
    lock = LeaseLock(target, lease=30, connect_timeout=1)
    assert lock.try_acquire()
    now[0] = 20
    lock.check()
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER TABLE {LEASE_TABLE} RENAME TO gone")
    now[0] = 45
    lock.check()
    now[0] = 51
    with pytest.raises(LockLostError, match="could not be renewed"):
        lock.check()
    with engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER TABLE gone RENAME TO {LEASE_TABLE}")
    lock.release()
