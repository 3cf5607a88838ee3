"""What a revision can fail of, caused for real: the code, and the hint that helps with it."""

import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from sqlalchemy import NullPool, create_engine, inspect, make_url, text

from conftest import RunCommand, serve
from following import FollowedRun
from racing import read_runs, write_app
from servers import (
    DRIVERS,
    USER,
    Database,
    MariaDB,
    PgBouncer,
    Server,
    render_url,
)
from sidecar_runs import Result

POSTGRESQL = ("psycopg", "psycopg2")
MYSQL = tuple(driver for driver in DRIVERS if driver not in POSTGRESQL)


class Broken(NamedTuple):
    """A body of a revision that fails, and what its last line has to say.

    Args:
        drivers: with which.
        bodies: of the revisions; the last one fails.
        code: the exit code.
        said: a part of the hint.
        setting: what the role or the session has set.
    """

    drivers: Sequence[str]
    bodies: Sequence[str]
    code: int
    said: str
    setting: str = ""


ENUM = """\
    op.execute("CREATE TYPE mood AS ENUM ('sad')")
    op.execute("CREATE TABLE felt (how mood)")
"""
NEW_VALUE = """\
    op.execute("ALTER TYPE mood ADD VALUE 'glad'")
    op.execute("INSERT INTO felt VALUES ('glad')")
"""
DISK = """\
    op.get_bind().connection.dbapi_connection.execute("PRAGMA max_page_count = 40")
    op.execute("CREATE TABLE big (text text)")
    for _ in range(400):
        op.execute("INSERT INTO big VALUES (hex(zeroblob(1000)))")
"""
SLOW = """\
    op.execute("SET SESSION max_statement_time = 0.2")
    op.execute("SELECT COUNT(*) FROM seq_1_to_100000 a, seq_1_to_100000 b")
"""
FULL = """\
    op.execute("SET SESSION max_heap_table_size = 16384")
    op.execute("CREATE TABLE full (x CHAR(255)) ENGINE=MEMORY")
    op.execute("INSERT INTO full SELECT 'x' FROM seq_1_to_9999")
"""
BROKEN = {
    "statement_timeout": Broken(
        POSTGRESQL, ['    op.execute("SELECT pg_sleep(30)")'], 8, "statement_timeout", "250ms"
    ),
    "max_statement_time": Broken(
        MYSQL,
        [SLOW],
        8,
        "max_statement_time",
    ),
    "new enum value": Broken(POSTGRESQL, [ENUM, NEW_VALUE], 8, "autocommit_block"),
    "no column": Broken(MYSQL, ['    op.execute("UPDATE ran SET gone = 1")'], 8, "stopped midway"),
    "no table": Broken(MYSQL, ['    op.execute("DELETE FROM gone")'], 8, "stopped midway"),
    "nothing to drop": Broken(MYSQL, ['    op.drop_table("gone")'], 8, "stopped midway"),
    "no column to drop": Broken(MYSQL, ['    op.drop_column("ran", "gone")'], 8, "stopped midway"),
    "second key": Broken(
        MYSQL,
        ['    op.execute("ALTER TABLE ran ADD PRIMARY KEY (revision)")\n' * 2],
        8,
        "stopped midway",
    ),
    "table is full": Broken(
        MYSQL,
        [FULL],
        8,
        "make room",
    ),
    "disk is full": Broken(["sqlite"], [DISK], 8, "make room"),
    "no table in a file": Broken(["sqlite"], ['    op.drop_table("gone")'], 8, "stopped midway"),
}
CASES = [
    pytest.param(name, driver, id=f"{name}-{driver}")
    for name, broken in BROKEN.items()
    for driver in broken.drivers
    if driver != "sqlite"
]


def run(broken: Broken, folder: Path, launch: RunCommand, url: str) -> Result:
    """Upgrade an application whose last revision fails, in a run of its own."""
    app = write_app(folder / "app", [*broken.bodies])
    before = launch(app, "db", "upgrade", f"r{len(broken.bodies)}", env={"DATABASE_URL": url})
    assert before.returncode == 0, before.stderr
    result = launch(app, "db", "upgrade", env={"DATABASE_URL": url})
    assert isinstance(result, Result)
    return result


def check(broken: Broken, result: Result) -> None:
    """Want the code, the hint and the revision."""
    assert result.returncode == broken.code == result.last["exit_code"], result.last
    assert broken.said in result.last["hint"], result.last
    assert result.last["revision"] == f"r{len(broken.bodies) + 1}"


@pytest.mark.parametrize(("name", "driver"), CASES)
def test_cause_has_its_hint(
    name: str, server: Server, database: Database, driver: str, tmp_path: Path, launch: RunCommand
) -> None:
    """A revision that fails of something a person can change is told what that is."""
    broken = BROKEN[name]
    if broken.setting:
        server.execute(
            f'ALTER ROLE {USER} IN DATABASE "{database.name}" '
            f"SET statement_timeout = '{broken.setting}'"
        )
    check(broken, run(broken, tmp_path, launch, database.url(driver)))


@pytest.mark.parametrize("name", [name for name, b in BROKEN.items() if "sqlite" in b.drivers])
def test_cause_in_a_file(name: str, tmp_path: Path, launch: RunCommand) -> None:
    """So is one in an SQLite file."""
    broken = BROKEN[name]
    check(broken, run(broken, tmp_path, launch, f"sqlite:///{tmp_path}/x.db"))


def test_full_disk(postgres: Server, tmp_path: Path, launch: RunCommand) -> None:
    """A server without room says so: the revision is right."""
    folder = postgres.folder / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this user may mount no file system")
    try:
        shutil.chown(folder, postgres.account)
        database = postgres.create_database()
        postgres.execute(
            f"CREATE TABLESPACE small LOCATION '{folder}'",
            f'GRANT CREATE ON TABLESPACE small TO "{USER}"',
        )
        body = (
            '    op.execute("CREATE TABLE big TABLESPACE small AS SELECT repeat(x::text, 500)'
            ' FROM generate_series(1, 99999) AS s(x)")'
        )
        broken = Broken((), [body], 8, "make room")
        check(broken, run(broken, tmp_path, launch, database.url()))
        postgres.execute("DROP TABLESPACE small")
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("driver", ["psycopg"])
def test_prepared_statement_behind_a_pooler(
    pgbouncer: PgBouncer, tmp_path: Path, launch: RunCommand, driver: str
) -> None:
    """What a pooler in transaction mode breaks is told as such."""
    url = make_url(pgbouncer.create_database().url(driver))
    body = """\
    connection = op.get_bind()
    raw = connection.connection.dbapi_connection
    raw.prepare_threshold = 0
    connection.exec_driver_sql("SELECT 1 + %s", (1,))
    # As where the pooler goes on with another session of the server's.
    op.execute("DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$")
    connection.exec_driver_sql("SELECT 1 + %s", (1,))
"""
    broken = Broken((), [body], 8, "pooler")
    check(broken, run(broken, tmp_path, launch, render_url(url)))


@pytest.mark.parametrize("driver", DRIVERS)
def test_id_that_is_longer_than_its_column(
    database: Database, driver: str, tmp_path: Path, launch: RunCommand
) -> None:
    """An id of more than 32 characters is told by name, with what mends it."""
    app = write_app(tmp_path / "app", [""])
    name = "r2_" + "x" * 40
    [file] = [f for f in (app / "migrations/versions").iterdir() if "r2" in f.name]
    file.write_text(file.read_text().replace('revision = "r2"', f'revision = "{name}"'))
    result = launch(app, "db", "upgrade", env={"DATABASE_URL": database.url(driver)})
    assert isinstance(result, Result)
    assert result.returncode == 8, result.last
    assert "version_num" in result.last["hint"]
    assert result.last["revision"] == name


STATEMENTS = {
    "execute": '    op.execute("INSERT INTO nowhere VALUES (1)")',
    "create_table": '    op.create_table("ran", sa.Column("id", sa.Integer))',
    "add_column": '    op.add_column("nowhere", sa.Column("id", sa.Integer))',
    "batch": '    with op.batch_alter_table("nowhere") as batch:\n        batch.drop_column("x")',
    "python": '    raise ValueError("no")',
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_failure_is_told_by_file_and_line(name: str, tmp_path: Path, launch: RunCommand) -> None:
    """The last line has the revision's file and line, its text, the statement and its frames."""
    body = STATEMENTS[name]
    app = write_app(tmp_path / "app", [body])
    result = launch(app, "db", "upgrade", env={"DATABASE_URL": f"sqlite:///{tmp_path}/x.db"})
    assert isinstance(result, Result)
    assert result.returncode == 8, result.last
    file = app / "migrations/versions/r2.py"
    first = body.splitlines()[0]
    number = 1 + file.read_text().splitlines().index(first)
    assert result.last["where"] == f"migrations/versions/r2.py:{number}"
    assert result.last["source"] in body
    frames = [frame for stack in result.last["exception"] for frame in stack["frames"]]
    files = [frame.get("filename") for frame in frames]
    assert {str(file), str(app / "migrations/env.py")} <= {*files}
    if name in {"execute", "create_table", "add_column"}:
        assert result.last["statement"].split()[0] in {"INSERT", "CREATE", "ALTER"}


def test_interrupted_statement_is_told(postgres: Server, tmp_path: Path) -> None:
    """A run that was interrupted says what it was at."""
    body = """\
    print("at it")
    op.execute("SELECT pg_sleep(60)")
"""
    app = write_app(tmp_path / "app", [body])
    url = postgres.create_database().url()
    with FollowedRun(app, "db", "upgrade", env={"DATABASE_URL": url}) as run:
        run.await_event("output", text="at it")
        run.process.send_signal(signal.SIGTERM)
        assert run.finish() == 143
    assert run.last["where"].startswith("migrations/versions/r2.py:"), run.last


@pytest.mark.parametrize("level", ["info", "debug"])
def test_no_line_is_too_long(level: str, tmp_path: Path, launch: RunCommand) -> None:
    """A statement of megabytes, a plan of hundreds, a printed book: each line fits."""
    body = """\
    print("p" * 900_000)
    op.execute("INSERT INTO nowhere VALUES ('" + "s" * 5_000_000 + "')")
"""
    app = write_app(tmp_path / "app", [*["    pass"] * 400, body])
    env = {"DATABASE_URL": f"sqlite:///{tmp_path}/x.db", "MIGRATE_LOG_LEVEL": level}
    result = launch(app, "db", "upgrade", env=env)
    assert isinstance(result, Result)
    assert result.returncode == 8, result.last
    lines = result.stderr.splitlines()
    assert max(len(line) for line in lines) < 16_000
    printed = "".join(line["text"] for line in result.log if line["event"] == "output")
    assert printed == "p" * 900_000
    [plan] = [line for line in result.log if line["event"] == "migration.plan"]
    assert plan["count"] == 402
    assert plan["count"] == len(plan["revisions"]) + plan["cut"]
    whole = "".join(line["text"] for line in result.log if line["event"] == "log.whole")
    assert ("s" * 5_000_000 in whole) == (level == "debug")


MIDWAY = {
    "autocommit_block": """\
    with op.get_context().autocommit_block():
        op.execute("CREATE TABLE left_over (id integer)")
""",
    "raw": '    op.execute("CREATE TABLE left_over (id integer)")\n    op.execute("COMMIT")\n',
    "comment": """\
    op.execute("CREATE TABLE left_over (id integer)")
    op.execute("/* x */ COMMIT")
""",
    "anew": '    op.execute("CREATE TABLE left_over (id integer); COMMIT; BEGIN")\n',
    "several": '    op.execute("CREATE TABLE left_over (id integer); COMMIT")\n',
    "commit()": """\
    op.execute("CREATE TABLE left_over (id integer)")
    op.get_bind().commit()
""",
    "driver": """\
    op.execute("CREATE TABLE left_over (id integer)")
    op.get_bind().connection.commit()
""",
    "driver alone": """\
    op.get_bind().connection.cursor().execute("CREATE TABLE left_over (id integer)")
    op.get_bind().connection.commit()
    op.execute("SELECT 1")
""",
}
# What looks like a commit, and is none.
WHOLE = {
    "function": """\
    op.execute("CREATE TABLE left_over (id integer)")
    op.execute("CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN 1; END; $$")
""",
    "atomic": """\
    op.execute("CREATE TABLE left_over (id integer)")
    op.execute("CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END")
""",
    "case": """\
    op.execute("CREATE TABLE left_over (id integer)")
    op.execute("SELECT CASE WHEN 1 = 1 THEN 2 END")
""",
    "literal": """\
    op.execute("CREATE TABLE left_over (id integer)")
    op.execute("COMMENT ON TABLE left_over IS 'a; commit to it'")
""",
    "escaped": r"""
    op.execute("CREATE TABLE left_over (id integer)")
    op.execute(r"COMMENT ON TABLE left_over IS E'it\'s; commit; begin'")
""",
    "failed commit": """\
    op.execute("CREATE TABLE left_over (id integer UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    op.execute("INSERT INTO left_over VALUES (1), (1)")
    with op.get_context().autocommit_block():
        pass
""",
    "failed commit()": """\
    op.execute("CREATE TABLE left_over (id integer UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    op.execute("INSERT INTO left_over VALUES (1), (1)")
    op.get_bind().commit()
""",
    "other": """\
    op.execute("CREATE TABLE left_over (id integer)")
    with op.get_bind().engine.begin() as other:
        other.execute(sa.text("SELECT 1"))
""",
    "savepoint": """\
    with op.get_bind().begin_nested():
        op.execute("CREATE TABLE left_over (id integer)")
""",
    "look": """\
    op.execute("CREATE TABLE left_over (id integer)")
    with op.get_bind().engine.connect() as other:
        other.execution_options(isolation_level="AUTOCOMMIT").execute(sa.text("SELECT 1"))
""",
}


@pytest.mark.parametrize("driver", POSTGRESQL)
@pytest.mark.parametrize("name", [*MIDWAY, *WHOLE])
def test_what_is_committed_midway_is_not_rolled_back(
    name: str, database: Database, driver: str, tmp_path: Path, launch: RunCommand
) -> None:
    """A revision that commits and then fails is unfinished; its first statements are there."""
    body = {**MIDWAY, **WHOLE}[name] + '    raise ValueError("behind it")\n'
    app = write_app(tmp_path / "app", [body])
    url = database.url(driver)
    result = launch(app, "db", "upgrade", env={"DATABASE_URL": url})
    assert isinstance(result, Result)
    assert result.returncode == 8, result.last
    with create_engine(url, poolclass=NullPool).connect() as connection:
        there = inspect(connection).has_table("left_over")
    assert there == (name in MIDWAY)
    gone = result.last["unfinished" if there else "rolled_back"]
    assert "r2" in gone, result.last
    assert ("r2" in result.last["rolled_back"]) != there
    # The first one was in the transaction that the second one ended.
    assert ("r1" in result.last["kept"]) == there


LONG = "q9Rk2Vx7" * 40
QUOTED = {
    "postgresql": [
        f"CREATE ROLE nobody PASSWORD '{LONG}' WRONG",
        f"CREATE ROLE nobody PASSWORD '{LONG}' {' ' * 8}WRONG",
        f"CREATE ROLE nobody WRONG PASSWORD '{LONG}'",
        f"CREATE ROLE nobody LOGIN PASSWORD '{LONG}",
    ],
    "mysql": [
        f"CREATE USER nobody IDENTIFIED BY '{LONG}' WRONG",
        f"CREATE USER nobody WRONG IDENTIFIED BY '{LONG}'",
        f"CREATE USER IDENTIFIED BY '{LONG}'",
    ],
}


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("driver", [*POSTGRESQL, "pymysql", "mysqldb"])
def test_password_that_the_server_quotes(
    driver: str, number: int, database: Database, tmp_path: Path, launch: RunCommand
) -> None:
    """A server quotes a part of a statement that it does not understand, and may cut a password."""
    statements = QUOTED["postgresql" if driver in POSTGRESQL else "mysql"]
    statement = statements[number % len(statements)]
    app = write_app(tmp_path / "app", [f'    op.get_bind().exec_driver_sql("{statement}")\n'])
    result = launch(app, "db", "upgrade", env={"DATABASE_URL": database.url(driver)})
    assert isinstance(result, Result)
    assert result.returncode == 8, result.last
    parts = {LONG[start : start + 4] for start in range(8)}
    assert not [part for part in parts if part in result.stderr], result.stderr
    assert "CREATE" in result.last["statement"]


LOST = {
    "by the server": ('op.execute("SELECT pg_terminate_backend(pg_backend_pid())")', 5),
    "by the revision": ('op.get_bind().invalidate(); raise ValueError("behind it")', 8),
}


@pytest.mark.parametrize("driver", POSTGRESQL)
@pytest.mark.parametrize("name", LOST)
def test_connection_that_is_lost_rolls_back(
    name: str, database: Database, driver: str, tmp_path: Path, launch: RunCommand
) -> None:
    """A session that is ended midway leaves nothing, and the run says so."""
    statement, code = LOST[name]
    body = f'    op.execute("CREATE TABLE left_over (id integer)")\n    {statement}\n'
    app = write_app(tmp_path / "app", [body])
    result = launch(app, "db", "upgrade", env={"DATABASE_URL": database.url(driver)})
    assert isinstance(result, Result)
    assert result.returncode == code, result.last
    assert result.last["rolled_back"] == ["r1", "r2"], result.last
    assert "unfinished" not in result.last
    assert ("behind it" in result.last["error"]["message"]) == (code == 8)


@pytest.mark.parametrize("driver", POSTGRESQL)
def test_index_that_was_cut_short(
    database: Database, driver: str, tmp_path: Path, launch: RunCommand
) -> None:
    """An index that was not built to its end is named, by this run and by the next one."""
    body = """\
    with op.get_context().autocommit_block():
        op.execute("CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS one ON ran (direction)")
"""
    twice = "    op.execute(\"INSERT INTO ran VALUES ('x', 'up'), ('y', 'up')\")\n"
    app = write_app(tmp_path / "app", [twice, body])
    env = {"DATABASE_URL": database.url(driver)}
    first = launch(app, "db", "upgrade", env=env)
    assert isinstance(first, Result)
    assert first.returncode == 8, first.last
    assert first.last["invalid_indexes"] == ["one"]
    assert first.last["unfinished"] == ["r3"]
    again = launch(app, "db", "upgrade", env=env)
    assert isinstance(again, Result)
    assert again.returncode == 0, again.last
    [warning] = [line for line in again.log if line["event"] == "database.index_invalid"]
    assert warning["indexes"] == ["one"]


def test_committed_revisions_are_told(postgres: Server, tmp_path: Path, launch: RunCommand) -> None:
    """What was told while its transaction was open is told again when it is there to stay."""
    app = write_app(tmp_path / "app", ["    pass"])
    env = {"DATABASE_URL": postgres.create_database().url()}
    up = launch(app, "db", "upgrade", env=env)
    assert isinstance(up, Result)
    applied = [line for line in up.log if line["event"] == "migration.applied"]
    assert [line["committed"] for line in applied] == [False, False]
    [committed] = [line for line in up.log if line["event"] == "migration.committed"]
    assert [line["revision"] for line in committed["revisions"]] == ["r1", "r2"]
    assert up.last["applied"] == ["r1", "r2"]

    down = launch(app, "db", "downgrade", "base", env=env)
    assert isinstance(down, Result)
    assert (down.last["applied"], down.last["reverted"]) == ([], ["r2", "r1"])
    stamp = launch(app, "db", "stamp", "head", env=env)
    assert isinstance(stamp, Result)
    assert (stamp.last["applied"], stamp.last["stamped"]) == ([], ["r2"])
    below = launch(app, "db", "stamp", "r1", env=env)
    assert isinstance(below, Result)
    assert (below.last["stamped"], below.last["to"]) == (["r1"], {"default": ["r1"]})
    base = launch(app, "db", "stamp", "base", env=env)
    assert isinstance(base, Result)
    assert (base.last["stamped"], base.last["to"]) == ([], {"default": []})


def test_dependency_is_not_what_it_follows(tmp_path: Path, launch: RunCommand) -> None:
    """`down_revision` is the revision below; another line's is none of it."""
    app = write_app(tmp_path / "app", ["    pass", "    pass"])
    file = app / "migrations/versions/r3.py"
    text = file.read_text().replace(
        "down_revision = 'r2'", 'down_revision = None\ndepends_on = "r2"'
    )
    file.write_text(text)
    env = {"DATABASE_URL": f"sqlite:///{tmp_path}/x.db"}
    result = launch(app, "db", "upgrade", "heads", env=env)
    assert isinstance(result, Result)
    assert result.returncode == 0, result.last
    told = [line for line in result.log if line["event"] == "migration.applied"]
    assert [(line["revision"], line["down_revision"]) for line in told] == [
        ("r1", None),
        ("r2", "r1"),
        ("r3", None),
    ]


@pytest.mark.parametrize("driver", DRIVERS)
def test_line_break_in_a_url(
    database: Database, driver: str, tmp_path: Path, launch: RunCommand
) -> None:
    """A URL that a secret gave a line break is refused, and the break is shown."""
    app = write_app(tmp_path / "app", [])
    env = {"DATABASE_URL": database.url(driver) + "\n", "MIGRATE_REFUSED_GRACE": "1s"}
    result = launch(app, "db", "upgrade", env=env)
    assert isinstance(result, Result)
    assert result.returncode == 6, result.last
    assert f"{database.name}\\n" in result.last["error"]["message"]
    assert "echo" in result.last["hint"]


def test_certificate_that_is_missing(mariadb: Server, tmp_path: Path, launch: RunCommand) -> None:
    """A file that the driver needs is told at once: no waiting brings it."""
    app = write_app(tmp_path / "app", [])
    url = mariadb.create_database().url("pymysql") + "?ssl_ca=/gone.pem"
    result = launch(app, "db", "upgrade", env={"DATABASE_URL": url, "MIGRATE_REFUSED_GRACE": "3s"})
    assert isinstance(result, Result)
    assert result.returncode == 3, result.last
    assert result.last["attempts"] == 1
    assert "what is mounted" in result.last["hint"]


def test_signal_while_an_index_is_built(postgres: Server, tmp_path: Path) -> None:
    """An index whose build a signal cut short is named, and the hint does not say "run again"."""
    body = """\
    with op.get_context().autocommit_block():
        print("building")
        op.execute("CREATE INDEX CONCURRENTLY one ON ran (direction)")
"""
    app = write_app(tmp_path / "app", [body])
    url = postgres.create_database().url()
    engine = create_engine(url, poolclass=NullPool)
    with FollowedRun(app, "db", "upgrade", "r1", env={"DATABASE_URL": url}) as first:
        assert first.finish() == 0, first.last
    env = {"DATABASE_URL": url, "MIGRATE_HEARTBEAT": "0.2s"}
    with engine.connect() as other, FollowedRun(app, "db", "upgrade", env=env) as run:
        other.execute(text("INSERT INTO ran VALUES ('x', 'x')"))
        run.await_event("migration.running", revision="r2")
        run.process.send_signal(signal.SIGTERM)
        assert run.finish() == 143, run.last
    assert run.last["unfinished"] == ["r2"]
    assert run.last["rolled_back"] == []
    assert run.last["invalid_indexes"] == ["one"]
    assert "see to them first" in run.last["hint"]


@pytest.mark.parametrize("driver", MYSQL)
def test_server_that_is_gone_in_a_revision(driver: str, tmp_path: Path) -> None:
    """Where nothing can be read any more, what may be half done is said all the same."""
    if driver == "mysqldb":
        pytest.importorskip("MySQLdb")
    app = write_app(tmp_path / "app", ['    print("at it")\n    op.execute("SELECT SLEEP(60)")'])
    with contextmanager(serve)(MariaDB) as server:
        env = {"DATABASE_URL": server.create_database().url(driver)}
        with FollowedRun(app, "db", "upgrade", env=env) as run:
            run.await_event("output", text="at it")
            server.kill()
            assert run.finish() == 5, run.last
    assert (run.last["kept"], run.last["unfinished"]) == (None, ["r2"])
    assert "undo or finish" in run.last["hint"]


def test_several_databases_on_mariadb(
    mariadb: Server, copy_app: Callable[[str], Path], launch: RunCommand
) -> None:
    """What stays of a run over several databases is told by database, and rolled back is gone."""
    names = ("DATABASE_URL", "USERS_DATABASE_URL", "AUDIT_DATABASE_URL")
    env = {name: mariadb.create_database().url() for name in names}
    with create_engine(env["AUDIT_DATABASE_URL"], poolclass=NullPool).begin() as connection:
        connection.execute(text("CREATE TABLE event (in_the_way integer)"))
    result = launch(copy_app("multidb"), "db", "upgrade", env=env)
    assert isinstance(result, Result)
    assert result.returncode == 8, result.last
    with create_engine(env["DATABASE_URL"], poolclass=NullPool).connect() as connection:
        assert inspect(connection).has_table("note")
    assert result.last["rolled_back"] == []
    assert {"default", "audit"} <= {name.split(":")[0] for name in result.last["unfinished"]}


@pytest.mark.parametrize("raised", ["UsageError", "BadParameter"])
def test_error_of_usage_in_a_revision(raised: str, tmp_path: Path, launch: RunCommand) -> None:
    """What a revision raises is its failure, whatever it borrows the class from."""
    app = write_app(tmp_path / "app", [f'    import click\n    raise click.{raised}("nope")'])
    result = launch(app, "db", "upgrade", env={"DATABASE_URL": f"sqlite:///{tmp_path}/x.db"})
    assert isinstance(result, Result)
    assert result.returncode == 8, result.last


def test_secret_at_the_end_of_a_statement(tmp_path: Path, launch: RunCommand) -> None:
    """A statement is cut when what is secret in it is hidden, and not in the midst of that."""
    body = """\
    op.execute("select 1 /*" + "x" * 1976 + "Zq77AbcXyzKlmnop*/ from nope")
"""
    app = write_app(tmp_path / "app", [body])
    env = {"DATABASE_URL": f"sqlite:///{tmp_path}/x.db", "APP_PASSWORD": "Zq77AbcXyzKlmnop"}
    result = launch(app, "db", "upgrade", env=env)
    assert isinstance(result, Result)
    assert result.returncode == 8, result.last
    assert "x***" in result.last["statement"]
    assert "Zq77" not in result.last["statement"]


def test_downgrade_that_fails(tmp_path: Path, launch: RunCommand) -> None:
    """What a downgrade undid is not called kept, and the line says where the database is."""
    app = write_app(tmp_path / "app", ["    pass", "    pass"])
    file = app / "migrations/versions/r2.py"
    head, down = file.read_text().split("def downgrade():")
    file.write_text(head + 'def downgrade():\n    raise ValueError("no")')
    assert down
    code = app / "app.py"
    own = "Migrate(app, db, transaction_per_migration=True)"
    code.write_text(code.read_text().replace("Migrate(app, db)", own))
    env = {"DATABASE_URL": f"sqlite:///{tmp_path}/x.db"}
    assert launch(app, "db", "upgrade", env=env).returncode == 0
    result = launch(app, "db", "downgrade", "base", env=env)
    assert isinstance(result, Result)
    assert result.returncode == 8, result.last
    assert (result.last["kept"], result.last["reverted"]) == ([], ["r3"])
    assert (result.last["from"], result.last["to"]) == ({"default": ["r3"]}, {"default": ["r2"]})


def test_branches_that_depend_on_each_other(tmp_path: Path, launch: RunCommand) -> None:
    """A database that holds a revision and what another line depends on is read as any other."""
    app = write_app(tmp_path / "app", ["    pass", "    pass", "    pass"])
    for name, down, depends in (("r3", None, "r1"), ("r4", "r3", "r2")):
        file = app / f"migrations/versions/{name}.py"
        lines = file.read_text().splitlines()
        number = next(n for n, line in enumerate(lines) if line.startswith("down_revision"))
        lines[number] = f"down_revision = {down!r}\ndepends_on = {depends!r}"
        file.write_text("\n".join(lines))
    env = {"DATABASE_URL": f"sqlite:///{tmp_path}/x.db"}
    for target in ("r2", "r3"):
        done = launch(app, "db", "upgrade", target, env=env)
        assert done.returncode == 0, done.stderr
    status = launch(app, "status", env=env)
    assert isinstance(status, Result)
    assert status.returncode == 0, status.last


@pytest.mark.parametrize("driver", DRIVERS)
def test_child_that_leaves_a_revision_beside_a_server(
    driver: str, database: Database, tmp_path: Path, launch: RunCommand
) -> None:
    """The connection is the parent's: a child that ends does not end its transaction."""
    body = """\
    import os, sys
    op.execute("INSERT INTO ran VALUES ('child', 'up')")
    child = os.fork()
    if not child:
        sys.exit(3)
    os.waitpid(child, 0)
"""
    app = write_app(tmp_path / "app", [body])
    result = launch(app, "db", "upgrade", env={"DATABASE_URL": database.url(driver)})
    assert isinstance(result, Result)
    assert result.returncode == 0, result.last
    assert read_runs(database.url()) == [("child", "up"), ("r1", "up"), ("r2", "up")]
