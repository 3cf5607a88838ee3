"""MySQL, whose newest release is no MariaDB: GET_LOCK, other defaults, other words.

By hand: `pytest -m endurance tests/integration/test_mysql.py`, with a Debian that has it (a skip
says how to make one).
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine, inspect, make_url

from app_code import cache_folder
from conftest import RunCommand, serve
from racing import GATED, finish, let_go_on, race, race_to_the_gate, read_runs, start, write_app
from servers import Database, MySQL, render_url
from sidecar_runs import events, read_log

pytestmark = pytest.mark.endurance

ONCE = [("r1", "up"), ("r2", "up"), ("r3", "up")]
DRIVERS = ("pymysql", "mysqldb")


@pytest.fixture(scope="module")
def mysql() -> Iterator[MySQL]:
    """Run MySQL."""
    yield from serve(lambda: MySQL(cache_folder() / "mysql"))


@pytest.fixture
def database(mysql: MySQL) -> Iterator[Database]:
    """Return a fresh database."""
    made = mysql.create_database()
    yield made
    mysql.drop_database(made.name)


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """Write an application whose second revision takes until the test lets it go on."""
    return write_app(tmp_path / "app", [GATED, "    pass"])


@pytest.mark.parametrize("driver", DRIVERS)
def test_lock_is_advisory(
    driver: str, database: Database, tmp_path: Path, launch: RunCommand
) -> None:
    """`auto` takes GET_LOCK, and a run at head ends as well as the first one."""
    app = write_app(tmp_path / "app", ["    pass"])
    env = {"DATABASE_URL": database.url(driver)}
    first = launch(app, "db", "upgrade", env=env)
    assert first.returncode == 0, first.stderr
    assert [line["kind"] for line in events(read_log(first.stderr), "lock.acquired")] == [
        "advisory"
    ]
    for words in (("db", "upgrade"), ("wait", "head"), ("status",), ("db", "downgrade", "base")):
        again = launch(app, *words, env=env)
        assert again.returncode == 0, again.stderr


def test_eight_replicas(app: Path, database: Database) -> None:
    """Of eight at once, one migrates and all end well."""
    replicas = race_to_the_gate(app, [{"DATABASE_URL": database.url()}] * 8)
    assert [replica.code for replica in replicas] == [0] * 8
    assert read_runs(database.url()) == ONCE


def test_killed_holder(app: Path, database: Database) -> None:
    """Who is killed in the midst leaves the lock, and the next one finishes."""
    env = {"DATABASE_URL": database.url()}
    holder = start(app, ("db", "upgrade"), env)
    holder.await_event("Running upgrade r1 -> r2, step 2")
    waiter = start(app, ("db", "upgrade"), env)
    assert waiter.await_event("lock.waiting")["holder"]
    holder.close()
    let_go_on(app, "r2")
    assert finish(waiter).code == 0
    assert read_runs(database.url()) == ONCE


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("wrong", ["password", "database"])
def test_refusal(
    driver: str, wrong: str, database: Database, app: Path, launch: RunCommand
) -> None:
    """What the server refuses is 6, and says what."""
    url = make_url(database.url(driver))
    url = url.set(password="no") if wrong == "password" else url.set(database="no")
    limits = {"MIGRATE_REFUSED_GRACE": "0", "MIGRATE_WAIT_TIMEOUT": "5"}
    result = launch(app, "db", "upgrade", env={"DATABASE_URL": render_url(url), **limits})
    assert result.returncode == 6, result.stderr
    number = {"password": "(1045)", "database": "(1044)"}[wrong]
    assert number in read_log(result.stderr)[-1]["error"]["message"]


@pytest.mark.parametrize("driver", DRIVERS)
def test_half_a_revision(
    driver: str, database: Database, tmp_path: Path, launch: RunCommand
) -> None:
    """What a failed revision has made stays, and is told; the next run says what is in the way."""
    body = (
        "    op.create_table('half', sa.Column('n', sa.Integer))\n    op.execute('SELECT nothing')"
    )
    app = write_app(tmp_path / "app", [body])
    env = {"DATABASE_URL": database.url(driver)}
    first = read_log(launch(app, "db", "upgrade", env=env).stderr)[-1]
    assert (first["exit_code"], first["kept"], first["unfinished"]) == (8, ["r1"], ["r2"])
    assert inspect(create_engine(database.url(), poolclass=NullPool)).has_table("half")
    again = read_log(launch(app, "db", "upgrade", env=env).stderr)[-1]
    assert again["exit_code"] == 8
    assert "1050" in again["error"]["message"] or "already exists" in again["error"]["message"]
    assert "midway" in again["hint"]


def test_replicas_of_a_target(app: Path, database: Database) -> None:
    """A relative target is applied once, whoever of two comes first."""
    let_go_on(app, "r2")
    replicas = race(app, [{"DATABASE_URL": database.url()}] * 2, "db", "upgrade", "+2")
    assert sorted(replica.code for replica in replicas) in ([0, 0], [0, 9])
    assert read_runs(database.url()) == ONCE[:2]
