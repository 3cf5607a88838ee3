"""Any number of replicas may start at once: each revision runs once, and all end well."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine, make_url, text

from racing import (
    GATED,
    Replica,
    finish,
    let_go_on,
    race,
    race_to_the_gate,
    read_runs,
    start,
    write_app,
)
from servers import MariaDB, PgBouncer, Postgres, Server, render_url

QUICK = "    pass"
ONCE = [("r1", "up"), ("r2", "up"), ("r3", "up")]
MANY = [
    pytest.param(4, id="4"),
    pytest.param(8, id="8", marks=pytest.mark.endurance),
    pytest.param(30, id="30", marks=pytest.mark.endurance),
]
SERVERS = pytest.mark.parametrize("dialect", ["postgresql", "mariadb"])

INDEX = """\
    op.create_table("big", sa.Column("id", sa.Integer), sa.Column("text", sa.String(40)))
    op.execute("INSERT INTO big SELECT n, md5(n::text) FROM generate_series(1, 200000) n")
"""
CONCURRENTLY = """\
    with op.get_context().autocommit_block():
        op.create_index("big_text", "big", ["text"], postgresql_concurrently=True)
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """Write an application whose second revision takes until the test lets it go on."""
    return write_app(tmp_path / "app", [GATED, QUICK])


def assert_all_well(replicas: list[Replica], url: str) -> None:
    """Hold the rule of this module."""
    failed = [replica.events[-1] for replica in replicas if replica.code]
    assert not failed
    assert read_runs(url) == ONCE
    working = [r for r in replicas if r.named("migration.applied")]
    assert len(working) == 1


@pytest.mark.parametrize("count", MANY)
def test_replicas_share_one_upgrade(app: Path, database_url: str, count: int) -> None:
    """Of several replicas one migrates; the others wait, find the work done and end with 0."""
    replicas = race_to_the_gate(app, [{"DATABASE_URL": database_url}] * count)
    assert_all_well(replicas, database_url)


@SERVERS
@pytest.mark.parametrize("count", MANY)
def test_lease_lets_one_migrate(
    app: Path, create_database_url: Callable[[], str], count: int
) -> None:
    """The lease table locks as well, and `check` does not see it afterwards."""
    url = create_database_url()
    env = {"DATABASE_URL": url, "MIGRATE_LOCK": "table"}
    assert_all_well(race_to_the_gate(app, [env] * count), url)
    [check] = race(app, [env], "db", "check")
    # The table that the revisions made has no model here, so something is found: that alone.
    assert check.code == 10
    assert "'ran'" in str(check.events[-1])
    assert "flask_migrate_sidecar_lock" not in str(check.events[-1])


@pytest.mark.parametrize("count", MANY)
def test_pooled_and_direct_replicas_share_one_upgrade(
    app: Path, postgres: Postgres, pgbouncer: PgBouncer, count: int
) -> None:
    """Replicas behind a pooler in transaction mode and direct ones exclude each other."""
    database = postgres.create_database()
    pooled = database.location.set(host=pgbouncer.host, port=pgbouncer.port)
    direct = {"DATABASE_URL": database.url()}
    through = {"DATABASE_URL": render_url(pooled)}
    assert_all_well(race_to_the_gate(app, [direct, through] * (count // 2)), database.url())


@pytest.mark.parametrize(
    "rounds", [pytest.param(1, id="1"), pytest.param(20, id="20", marks=pytest.mark.endurance)]
)
def test_index_is_built_concurrently_beside_waiters(
    tmp_path: Path, postgres: Postgres, rounds: int
) -> None:
    """`CREATE INDEX CONCURRENTLY` ends while one replica holds the lock and others wait for it."""
    for number in range(rounds):
        app = write_app(tmp_path / f"app{number}", [INDEX + GATED, CONCURRENTLY])
        database = postgres.create_database()
        replicas = race_to_the_gate(app, [{"DATABASE_URL": database.url()}] * 4)
        assert_all_well(replicas, database.url())
        postgres.drop_database(database.name)


def test_next_replica_takes_over_from_a_killed_one(app: Path, database_url: str) -> None:
    """A holder that is killed in the middle leaves the lock to the next, which finishes."""
    env = {"DATABASE_URL": database_url}
    holder = start(app, ("db", "upgrade"), env)
    holder.await_event("Running upgrade r1 -> r2, step 2")
    waiter = start(app, ("db", "upgrade"), env)
    waiting = waiter.await_event("lock.waiting")
    assert waiting["holder"]
    holder.close()
    let_go_on(app, "r2")
    assert finish(waiter).code == 0
    assert read_runs(database_url) == ONCE


def test_two_binds_on_one_database_are_locked_once(tmp_path: Path, database_url: str) -> None:
    """Two names of one database do not make a replica wait for itself."""
    app = write_app(tmp_path / "app", [QUICK, QUICK])
    env = {"DATABASE_URL": database_url, "SECOND_URL": database_url}
    [replica] = race(app, [{**env, "MIGRATE_LOCK_TIMEOUT": "5s"}])
    assert replica.code == 0
    assert len(replica.named("lock.acquired")) == 1


def test_another_spelling_of_a_url_is_the_same_database(tmp_path: Path, postgres: Postgres) -> None:
    """A bind that reaches the main database under another host name is not locked twice."""
    app = write_app(tmp_path / "app", [QUICK, QUICK])
    database = postgres.create_database()
    other = render_url(database.location.set(host="localhost"))
    env = {"DATABASE_URL": database.url(), "SECOND_URL": other, "MIGRATE_LOCK_TIMEOUT": "5s"}
    [replica] = race(app, [env])
    assert replica.code == 0
    assert len(replica.named("lock.acquired")) == 1


def test_relative_targets_are_applied_once(tmp_path: Path, database_url: str) -> None:
    """Replicas that all ask for `+1` from the same state apply one revision between them."""
    app = write_app(tmp_path / "app", [GATED, QUICK])
    env = {"DATABASE_URL": database_url}
    assert race(app, [env], "db", "upgrade", "+1")[0].code == 0
    holder = start(app, ("db", "upgrade", "+1"), env)
    holder.await_event("lock.acquired")
    waiters = [start(app, ("db", "upgrade", "+1"), env) for _ in range(2)]
    for waiter in waiters:
        waiter.await_event("lock.waiting")
    let_go_on(app, "r2")
    codes = [finish(process).code for process in (holder, *waiters)]
    assert codes == [0, 0, 0]
    assert read_runs(database_url) == ONCE[:2]


def test_lock_timeout_names_the_holder(app: Path, database_url: str) -> None:
    """A replica that does not get the lock in time ends with 7 and says who has it."""
    env = {"DATABASE_URL": database_url}
    holder = start(app, ("db", "upgrade"), env)
    holder.await_event("lock.acquired")
    [late] = race(app, [{**env, "MIGRATE_LOCK_TIMEOUT": "0"}])
    let_go_on(app, "r2")
    assert finish(holder).code == 0
    assert late.code == 7
    assert late.events[-1]["holder"]["pid"]


def test_run_does_not_succeed_without_its_lock(tmp_path: Path, postgres: Postgres) -> None:
    """The connection that holds the lock dies while a revision runs: the run ends with 5."""
    app = write_app(tmp_path / "app", [GATED, QUICK])
    database = postgres.create_database()
    process = start(app, ("db", "upgrade"), {"DATABASE_URL": database.url()})
    process.await_event("Running upgrade r1 -> r2, step 2")
    postgres.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_locks "
        f"JOIN pg_database d ON d.oid = database AND datname = '{database.name}' "
        "WHERE locktype = 'advisory' AND granted"
    )
    let_go_on(app, "r2")
    replica = finish(process)
    assert replica.code == 5
    assert not replica.named("command.finished")


def test_downgrades_at_once_are_serialised(tmp_path: Path, database_url: str) -> None:
    """`downgrade` is not for replicas: each one that gets the lock goes one step further."""
    app = write_app(tmp_path / "app", [QUICK, QUICK])
    env = {"DATABASE_URL": database_url}
    assert race(app, [env])[0].code == 0
    # The last step back would drop nothing: the table that counts stays.
    replicas = race(app, [env] * 2, "db", "downgrade")
    assert [replica.code for replica in replicas] == [0, 0]
    assert [run for run in read_runs(database_url) if run[1] == "down"] == [
        ("r2", "down"),
        ("r3", "down"),
    ]


def test_mariadb_holder_is_named(tmp_path: Path, mariadb: MariaDB) -> None:
    """A waiter on MariaDB learns the connection id of the holder."""
    app = write_app(tmp_path / "app", [GATED])
    env = {"DATABASE_URL": mariadb.create_database().url()}
    holder = start(app, ("db", "upgrade"), env)
    holder.await_event("lock.acquired")
    waiter = start(app, ("db", "upgrade"), env)
    assert waiter.await_event("lock.waiting")["holder"]["pid"]
    let_go_on(app, "r2")
    assert [finish(holder).code, finish(waiter).code] == [0, 0]


@pytest.mark.parametrize("name", ["postgres", "mariadb"])
def test_long_revision_says_who_blocks_it(
    tmp_path: Path, name: str, request: pytest.FixtureRequest
) -> None:
    """While another session blocks a revision, `migration.running` says so and names it."""
    server: Server = request.getfixturevalue(name)
    change = "    op.add_column('ran', sa.Column('more', sa.Integer))"
    app = write_app(tmp_path / "app", [change])
    # On MariaDB only a role that may see all processes learns who blocks.
    location = make_url(server.admin_url).set(database=server.create_database().name)
    url = render_url(location)
    env = {"DATABASE_URL": url, "MIGRATE_HEARTBEAT": "1"}
    assert race(app, [env], "db", "upgrade", "r1")[0].code == 0
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as other:
        other.execute(text("INSERT INTO ran (revision) VALUES ('other')"))
        process = start(app, ("db", "upgrade"), env)
        running = process.await_event("migration.running")
        other.rollback()
    assert finish(process).code == 0
    assert running["revision"] == "r2"
    assert "lock" in running["waits_for"].lower()
    assert len(running["blocked_by"]) == 1


def test_next_replica_goes_on_from_where_the_killed_one_was(
    tmp_path: Path, database_url: str
) -> None:
    """A holder that committed a part before it died leaves the rest to the one that waited."""
    app = write_app(tmp_path / "app", [GATED, GATED])
    env = {"DATABASE_URL": database_url}
    assert race(app, [env], "db", "upgrade", "r1")[0].code == 0
    holder = start(app, ("db", "upgrade"), env)
    holder.await_event("Running upgrade r1 -> r2, step 2")
    waiter = start(app, ("db", "upgrade"), env)
    waiter.await_event("lock.waiting")
    let_go_on(app, "r2")
    holder.await_event("Running upgrade r2 -> r3, step 3")
    holder.close()
    let_go_on(app, "r3")
    assert finish(waiter).code == 0
    assert read_runs(database_url) == ONCE


def test_database_that_moved_elsewhere_is_refused(tmp_path: Path, postgres: Postgres) -> None:
    """A database that another one stamped to something else meanwhile ends the waiter with 9."""
    app = write_app(tmp_path / "app", [GATED, QUICK])
    database = postgres.create_database()
    env = {"DATABASE_URL": database.url()}
    assert race(app, [env], "db", "upgrade", "r1")[0].code == 0
    holder = start(app, ("db", "upgrade", "r2"), env)
    holder.await_event("Running upgrade r1 -> r2, step 2")
    waiter = start(app, ("db", "upgrade", "+2"), env)
    waiter.await_event("lock.waiting")
    let_go_on(app, "r2")
    assert finish(holder).code == 0
    # Half of the way to a relative target: going on would end one revision too far.
    assert finish(waiter).code == 9


def test_ahead_is_seen_behind_the_lock(tmp_path: Path, postgres: Postgres) -> None:
    """A database that newer code moved while this code waited is ahead, and may be ignored."""
    new = write_app(tmp_path / "new", [GATED, QUICK])
    old = write_app(tmp_path / "old", [GATED])
    env = {"DATABASE_URL": postgres.create_database().url(), "MIGRATE_IF_AHEAD": "ignore"}
    holder = start(new, ("db", "upgrade"), env)
    holder.await_event("Running upgrade r1 -> r2, step 2")
    waiter = start(old, ("db", "upgrade"), env)
    waiter.await_event("lock.waiting")
    let_go_on(new, "r2")
    assert finish(holder).code == 0
    replica = finish(waiter)
    assert replica.code == 0
    assert replica.named("database.ahead")
