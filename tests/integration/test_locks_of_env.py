"""Repositories whose `env.py` takes a lock of its own: a look takes none, and waits in none."""

import fcntl
import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import Connection, NullPool, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError

from conftest import RunCommand
from flask_migrate_sidecar.database.dialect import LockLimit
from flask_migrate_sidecar.database.postgresql import PostgreSQL
from flask_migrate_sidecar.history.locks_of_env import locks_left_out
from following import FollowedRun
from racing import start, write_app
from servers import MariaDB, Postgres, render_url
from sidecar_runs import events, read_log

# Each where repositories have it: before `configure`, or in Alembic's own transaction.
SESSION = ('connection.exec_driver_sql("SELECT pg_advisory_lock(42)")', "connection.commit()")
POLLED = (
    'while not connection.exec_driver_sql("SELECT pg_try_advisory_lock(42)").scalar():',
    "    connection.rollback()",
    "connection.commit()",
)
TRANSACTION = ('connection.exec_driver_sql("SELECT pg_advisory_xact_lock(42)")',)
TABLE = ('connection.exec_driver_sql("LOCK TABLE guard IN EXCLUSIVE MODE")',)
ROW = ('connection.exec_driver_sql("SELECT id FROM guard FOR UPDATE").all()',)
NAMED = ("connection.exec_driver_sql(\"SELECT GET_LOCK('migrations', -1)\")", "connection.commit()")
BEFORE = {"session": SESSION, "polled": POLLED}
WITHIN = {"transaction": TRANSACTION, "table": TABLE, "row": ROW}
VERSIONS = ('connection.exec_driver_sql("LOCK TABLE alembic_version IN EXCLUSIVE MODE")',)
INDEX = """\
    with op.get_context().autocommit_block():
        op.create_index("by_revision", "ran", ["revision"], postgresql_concurrently=True)
"""


def guard(app: Path, kind: str) -> Path:
    """Put a lock into an application's `env.py`."""
    env_py = app / "migrations" / "env.py"
    source = env_py.read_text()
    configure, run = " " * 8 + "context.configure(connection", " " * 12 + "context.run_migrations()"
    if kind in {**WITHIN, "versions": VERSIONS}:
        head, _, tail = source.rpartition(run)
        lines = "".join(f"{' ' * 12}{line}\n" for line in {**WITHIN, "versions": VERSIONS}[kind])
        env_py.write_text(f"{head}{lines}{run}{tail}")
    else:
        lines = "".join(f"{' ' * 8}{line}\n" for line in {**BEFORE, "named": NAMED}[kind])
        env_py.write_text(source.replace(configure, lines + configure))
    return app


def connect(url: str) -> Connection:
    """Connect without a transaction."""
    return create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT").connect()


@pytest.fixture
def url(postgres: Postgres) -> Iterator[str]:
    """Return a fresh PostgreSQL database, with a table that is there to be locked."""
    database = postgres.create_database()
    with connect(database.url()) as connection:
        connection.exec_driver_sql("CREATE TABLE guard (id integer)")
        connection.exec_driver_sql("INSERT INTO guard VALUES (1)")
    yield database.url()
    postgres.drop_database(database.name)


ROUNDS = [pytest.param(1, id="1"), pytest.param(20, id="20", marks=pytest.mark.endurance)]


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize("kind", ["none", *BEFORE, *WITHIN, "versions"])
def test_index_is_built_beside_gates(
    kind: str, rounds: int, postgres: Postgres, tmp_path: Path, launch: RunCommand
) -> None:
    """A gate waits in no lock of `env.py`: it would hold what an index build waits for."""
    app = write_app(tmp_path / "app", [INDEX])
    if kind != "none":
        guard(app, kind)
    for _ in range(rounds):
        database = postgres.create_database()
        with connect(database.url()) as connection:
            connection.exec_driver_sql("CREATE TABLE guard AS SELECT 1 AS id")
            versions = "CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY)"
            connection.exec_driver_sql(versions)
            build_beside_gates(app, {"DATABASE_URL": database.url()}, launch)
            invalid = "SELECT count(*) FROM pg_index WHERE NOT indisvalid"
            assert connection.exec_driver_sql(invalid).scalar_one() == 0
        postgres.drop_database(database.name)


def build_beside_gates(app: Path, env: dict[str, str], launch: RunCommand) -> None:
    """Upgrade while two gates and a look wait for it or see it; all of them end well."""
    gates = [start(app, ["wait", "head"], env) for _ in range(2)]
    for gate in gates:
        gate.await_event("head.waiting")
    look = start(app, ["status"], env)
    result = launch(app, "db", "upgrade", env=env)
    assert result.returncode == 0, result.stderr
    assert [follower.finish() for follower in (*gates, look)] == [0, 0, 0]


@pytest.mark.parametrize("command", ["status", "wait head", "db current"])
@pytest.mark.parametrize("kind", BEFORE)
def test_look_beside_a_lock_that_is_held(
    kind: str, command: str, url: str, tmp_path: Path, launch: RunCommand
) -> None:
    """Whoever holds the lock of `env.py`, the revisions can be read."""
    app = guard(write_app(tmp_path / "app", []), kind)
    env = {"DATABASE_URL": url, "MIGRATE_HEAD_TIMEOUT": "0", "MIGRATE_LOCK_TIMEOUT": "3s"}
    assert launch(app, "db", "upgrade", env=env).returncode == 0
    with connect(url) as holder:
        holder.exec_driver_sql("SELECT pg_advisory_lock(42)")
        result = launch(app, *command.split(), env=env)
        assert result.returncode == 0, result.stderr
        held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
        assert holder.exec_driver_sql(held).scalar_one() == 1
    assert "r1" in result.stdout or command == "wait head"


POOL = """\
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"pool_size": 5}
    db.init_app(app)
    with app.app_context():
        db.engine.connect().close()
"""


KEPT = """\
    db.init_app(app)
    with app.app_context():
        app.config["KEPT"] = db.engine.connect()
"""


@pytest.mark.parametrize("kind", ["session", "named"])
def test_lock_that_nobody_gives_back(
    kind: str, postgres: Postgres, mariadb: MariaDB, tmp_path: Path, launch: RunCommand
) -> None:
    """`env.py` is read several times in one run; a lock that its connection keeps stops none."""
    server = postgres if kind == "session" else mariadb
    database = server.create_database()
    app = guard(write_app(tmp_path / "app", []), kind)
    env_py = app / "migrations" / "env.py"
    # Kept by a connection that stays open, as one of a pool does.
    env_py.write_text(
        env_py.read_text()
        .replace(
            "    with get_engine().connect() as connection:\n",
            "    if True:\n        connection = OPEN\n",
        )
        .replace("def run_online():", "OPEN = get_engine().connect()\n\n\ndef run_online():")
    )
    result = launch(app, "db", "upgrade", env={"DATABASE_URL": database.url()})
    assert result.returncode == 0, result.stderr
    server.drop_database(database.name)


@pytest.mark.parametrize("command", ["status", "db current", "db upgrade", "db stamp head"])
def test_version_table_that_is_locked(command: str, url: str, tmp_path: Path) -> None:
    """Who holds the version table is said at once, and waited for, up to the limit."""
    app = write_app(tmp_path / "app", [])
    env = {"DATABASE_URL": url, "MIGRATE_LOCK_TIMEOUT": "120s"}
    with FollowedRun(app, "db", "upgrade", env=env) as run:
        assert run.finish() == 0
    with connect(url) as holder:
        holder.exec_driver_sql("SET application_name = 'in the way'")
        holder.exec_driver_sql("BEGIN")
        holder.exec_driver_sql("LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE")
        with FollowedRun(app, *command.split(), env=env) as run:
            line = run.await_event("database.waiting")
            holder.exec_driver_sql("COMMIT")
            result = run.result()
    assert line["waits_for"] == "alembic_version"
    assert [blocker["application"] for blocker in line["blocked_by"]] == ["in the way"]
    assert result.returncode == 0, result.stderr
    if command == "status":
        assert json.loads(result.stdout)["databases"]["default"]["state"] == "at_head"


@pytest.mark.parametrize("command", ["status", "db current", "db upgrade", "wait head"])
def test_version_table_that_stays_locked(
    command: str, url: str, tmp_path: Path, launch: RunCommand
) -> None:
    """At the limit the run ends: a lock that was not to be had is 7, a gate's database 5."""
    app = write_app(tmp_path / "app", [])
    env = {"DATABASE_URL": url, "MIGRATE_LOCK_TIMEOUT": "1s", "MIGRATE_HEAD_TIMEOUT": "3s"}
    assert launch(app, "db", "upgrade", env=env).returncode == 0
    with connect(url) as holder:
        holder.exec_driver_sql("BEGIN")
        holder.exec_driver_sql("LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE")
        result = launch(app, *command.split(), env=env)
    log = read_log(result.stderr)
    assert result.returncode == log[-1]["exit_code"] == (5 if command == "wait head" else 7)
    assert "lock" in log[-1]["error"]["message"]
    assert events(log, "head.waiting" if command == "wait head" else "database.waiting")


def test_limit_of_a_look_is_not_the_migration_s(
    mariadb: MariaDB, tmp_path: Path, launch: RunCommand
) -> None:
    """What a look sets on a connection that `env.py` keeps does not stay there."""
    body = """\
    said = op.get_bind().exec_driver_sql("SELECT @@lock_wait_timeout").scalar()
    op.execute(f"INSERT INTO ran (revision, direction) VALUES ('{said}', 'said')")
"""
    app = write_app(tmp_path / "app", [body])
    source = (app / "app.py").read_text()
    (app / "app.py").write_text(source.replace("    db.init_app(app)\n", KEPT))
    env = app / "migrations" / "env.py"
    text = env.read_text()
    assert "get_engine().connect()" in text
    env.write_text(
        "from contextlib import nullcontext\n"
        + text.replace("get_engine().connect()", "nullcontext(current_app.config['KEPT'])")
        + "\ncurrent_app.config['KEPT'].commit()\n"
    )
    database = mariadb.create_database()
    own = make_url(database.url()).update_query_dict(
        {"init_command": "SET SESSION lock_wait_timeout = 77"}
    )
    assert launch(app, "db", "upgrade", env={"DATABASE_URL": render_url(own)}).returncode == 0
    with connect(database.url()) as connection:
        said = connection.exec_driver_sql("SELECT revision FROM ran WHERE direction = 'said'")
        assert said.scalar_one() == "77"
    mariadb.drop_database(database.name)


def test_server_that_has_no_such_limit(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that speaks the protocol and knows no `lock_timeout` is read all the same."""
    monkeypatch.setattr(PostgreSQL, "lock_limit", LockLimit("SET LOCAL nosuch_timeout = '1s'"))
    engine = create_engine(url, poolclass=NullPool)
    with locks_left_out(), engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT 7").scalar_one() == 7


def test_thread_of_the_application_beside_a_look() -> None:
    """A look leaves out what its own thread would lock, and no lock of the application's."""
    engine = create_engine("sqlite://", poolclass=NullPool)
    seen: list[str] = []
    event.listen(
        engine,
        "before_cursor_execute",
        lambda _connection, _cursor, statement, *_: seen.append(statement),
    )

    def lock() -> None:
        with engine.connect() as connection, suppress(DBAPIError):
            connection.exec_driver_sql("SELECT pg_try_advisory_lock(1) AS locked")

    with locks_left_out():
        beside = threading.Thread(target=lock)
        beside.start()
        beside.join()
        with engine.connect() as connection:
            query = "SELECT pg_try_advisory_lock(1) AS locked"
            assert connection.exec_driver_sql(query).mappings().one() == {"locked": 1}
    assert seen[0] == "SELECT pg_try_advisory_lock(1) AS locked"


FILE = """
import fcntl

guarding = open("env.lock", "w")
fcntl.{call}(guarding, fcntl.LOCK_EX)
"""
# Whether the lock of the file is held by then, seen from another process.
LOOKED_AT = """\
    import subprocess, sys
    program = "import fcntl; fcntl.{call}(open('env.lock', 'w'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    done = subprocess.run([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    print("held" if done.returncode else "free")
"""


@pytest.mark.timeout(90)
@pytest.mark.parametrize("call", ["flock", "lockf"])
def test_file_that_env_py_locks(call: str, tmp_path: Path, launch: RunCommand) -> None:
    """A file that `env.py` locks and never closes is locked by the migration, and by no look."""
    app = write_app(tmp_path / "app", [LOOKED_AT.format(call=call)])
    env_py = app / "migrations" / "env.py"
    env_py.write_text(FILE.format(call=call) + env_py.read_text())
    env = {"DATABASE_URL": f"sqlite:///{tmp_path}/x.db"}
    with FollowedRun(app, "db", "upgrade", env=env) as run:
        assert run.finish() == 0, run.last
    assert "held" in [line["text"] for line in run.named("output")]
    with (app / "env.lock").open("w") as file:
        getattr(fcntl, call)(file, fcntl.LOCK_EX)
        for command in ("status", "wait head", "db upgrade"):
            assert launch(app, *command.split(), env=env).returncode == 0
