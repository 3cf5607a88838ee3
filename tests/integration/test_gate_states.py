"""The gate and `status` where a database is on another way, or away for a while."""

import json
from pathlib import Path
from time import monotonic

import pytest
from sqlalchemy import NullPool, create_engine, text

from following import FollowedRun
from racing import write_app
from servers import Server
from sidecar_runs import Launcher, Result, patiently

QUICK = "    pass"


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """Write an application with three revisions."""
    return write_app(tmp_path / "app", [QUICK, QUICK])


@pytest.fixture
def diverged_url(app: Path, database_url: str, launch: Launcher) -> str:
    """Return a database that holds r2, which is no head, and a revision that nobody knows."""
    done = launch(app, "db", "upgrade", "r2", env={"DATABASE_URL": database_url})
    assert done.returncode == 0, done.stderr
    engine = create_engine(database_url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO alembic_version VALUES ('feedbeef0000')"))
    return database_url


def test_status_of_a_diverged_database(app: Path, diverged_url: str, launch: Launcher) -> None:
    """An unknown revision beside a known one that is no head is `diverged`, not `ahead`."""
    result = launch(app, "status", env={"DATABASE_URL": diverged_url})
    assert result.returncode == 0, result.stderr
    state = json.loads(result.stdout)["databases"]["default"]
    assert (state["state"], state["unknown"]) == ("diverged", ["feedbeef0000"])
    assert (state["current"], state["heads"]) == (["feedbeef0000", "r2"], ["r3"])
    # What an upgrade would do is not known.
    assert state["pending"] == []


def test_gate_stays_closed_for_a_diverged_database(
    app: Path, diverged_url: str, launch: Launcher
) -> None:
    """The code's own head was never reached, so `wait head` does not pass: 10."""

    def wait(limit: float) -> Result:
        env = {"DATABASE_URL": diverged_url, "MIGRATE_HEAD_TIMEOUT": str(limit)}
        return launch(app, "wait", "head", env=env)

    result = patiently(wait, lambda result: '"head.waiting"' in result.stderr)
    last = json.loads(result.stderr.splitlines()[-1])
    assert (result.returncode, last["states"]) == (10, {"default": "diverged"}), last


def test_diverged_is_not_ignored_as_ahead(app: Path, diverged_url: str, launch: Launcher) -> None:
    """`--if-ahead ignore` is for databases that are ahead: a diverged one ends with 9."""
    result = launch(
        app, "--if-ahead", "ignore", "db", "upgrade", env={"DATABASE_URL": diverged_url}
    )
    last = json.loads(result.stderr.splitlines()[-1])
    assert (result.returncode, last["states"]) == (9, {"default": "diverged"}), last


@pytest.mark.parametrize(
    ("server_name", "driver"),
    [
        ("postgres", "psycopg"),
        ("postgres", "psycopg2"),
        ("mariadb", "pymysql"),
        ("mariadb", "mysqldb"),
    ],
)
def test_gate_outlasts_an_outage(
    app: Path,
    server_name: str,
    driver: str,
    request: pytest.FixtureRequest,
    launch: Launcher,
) -> None:
    """A server that goes away under the gate and comes back costs time, not the gate."""
    if driver == "mysqldb":
        pytest.importorskip("MySQLdb")
    server: Server = request.getfixturevalue(server_name)
    database = server.create_database()
    env = {"DATABASE_URL": database.url(driver)}
    with FollowedRun(app, "wait", "head", env=env) as gate:
        gate.await_event("head.waiting", states={"default": "empty"})
        server.stop()
        try:
            gate.await_event("head.waiting", states={"default": "unreachable"})
        finally:
            server.start()
        done = launch(app, "db", "upgrade", env=env)
        assert done.returncode == 0, done.stderr
        assert gate.finish() == 0, gate.last
    assert gate.named("head.reached")


def test_gate_opens_for_a_database_that_is_ahead(
    tmp_path: Path, app: Path, database_url: str, launch: Launcher
) -> None:
    """Pods of an older image start under a newer database: all that they know is there."""
    env = {"DATABASE_URL": database_url}
    done = launch(app, "db", "upgrade", env=env)
    assert done.returncode == 0, done.stderr
    older = write_app(tmp_path / "older", [QUICK])
    with FollowedRun(older, "wait", "head", env={**env, "MIGRATE_HEAD_TIMEOUT": "60"}) as gate:
        assert gate.finish() == 0, gate.last
    assert gate.named("head.reached")[0]["states"] == {"default": "ahead"}


def test_gate_gives_up_in_time(tmp_path: Path, app: Path) -> None:
    """`--head-timeout` is a wall clock: the next look is not begun behind it."""
    env = {"DATABASE_URL": f"sqlite:///{tmp_path}/x.db", "MIGRATE_HEAD_TIMEOUT": "1"}
    with FollowedRun(app, "wait", "head", env=env) as gate:
        gate.await_event("head.waiting")
        looked = monotonic()
        assert gate.finish() == 10, gate.last
    assert monotonic() - looked < 40
