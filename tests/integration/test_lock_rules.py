"""What the locks promise where several databases, version tables or lock files are in play."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine, make_url

from conftest import RunCommand
from flask_migrate_sidecar.database.connect import Database
from flask_migrate_sidecar.errors import LockedError
from flask_migrate_sidecar.lock.acquire import hold_locks, read_holder
from flask_migrate_sidecar.lock.base import LockLostError, LockTarget
from flask_migrate_sidecar.lock.sqlite import FileLock
from flask_migrate_sidecar.lock.watch import Guard
from following import FollowedRun
from racing import read_runs, write_app
from servers import Postgres, render_url

QUICK = "    pass"
STAMP = ("db", "stamp", "head")
# Blocks until the test opens the other end.
BLOCKED = '    print("begun")\n    open(os.environ["FIFO"]).close()'


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


# Several databases


def test_several_locks_have_one_order(
    tmp_path: Path, create_database_url: Callable[[], str]
) -> None:
    """Runs that list two databases in opposite orders take their locks in the same one."""
    app = write_app(tmp_path / "app", [QUICK])
    urls = {"default": create_database_url(), "second": create_database_url()}
    env = {"DATABASE_URL": urls["default"], "SECOND_URL": urls["second"]}
    with FollowedRun(app, *STAMP, env=env) as run:
        assert run.finish() == 0, run.last
        first, second = [urls[line["database"]] for line in run.named("lock.acquired")]

    options = ("--lock-timeout", "60s")
    one = FollowedRun(app, *options, *STAMP, env={"DATABASE_URL": first, "SECOND_URL": second})
    other = FollowedRun(app, *options, *STAMP, env={"DATABASE_URL": second, "SECOND_URL": first})
    with one, other:
        with held(first):
            one.await_event("lock.waiting")
            other.await_event("lock.waiting")
            # Whatever it has by now, it keeps.
            other.process.send_signal(signal.SIGSTOP)
        assert one.finish() == 0, one.last
        other.process.send_signal(signal.SIGCONT)
        assert other.finish() == 0, other.last


# Version tables


@pytest.fixture
def app_of_tables(tmp_path: Path) -> Path:
    """Write an application whose version table a variable names, and whose upgrade waits."""
    app = write_app(tmp_path / "app", [BLOCKED])
    source = (app / "app.py").read_text()
    table = 'Migrate(app, db, version_table=os.environ["VERSION_TABLE"])'
    (app / "app.py").write_text(source.replace("Migrate(app, db)", table))
    revision = app / "migrations/versions/r2.py"
    revision.write_text(revision.read_text().replace("import time", "import os"))
    os.mkfifo(tmp_path / "fifo")
    return app


@pytest.mark.parametrize("kind", ["advisory", "table"])
@pytest.mark.parametrize("dialect", ["postgresql", "mariadb"], indirect=True)
def test_version_table_is_part_of_the_key(
    app_of_tables: Path, database_url: str, kind: str, sidecar: RunCommand
) -> None:
    """Apps that share a database wait for each other only if they share the version table."""
    fifo = app_of_tables.parent / "fifo"
    env = {"DATABASE_URL": database_url, "FIFO": str(fifo), "MIGRATE_LOCK": kind}
    ours, others = {**env, "VERSION_TABLE": "ours"}, {**env, "VERSION_TABLE": "others"}
    with FollowedRun(app_of_tables, "db", "upgrade", env=ours) as holder:
        holder.await_event("output", text="begun")
        options = ("--lock-timeout", "0", *STAMP)
        codes = [sidecar(app_of_tables, *options, env=env).returncode for env in (others, ours)]
        # Not blocking, should the holder be gone.
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
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
