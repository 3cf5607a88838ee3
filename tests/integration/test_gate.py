"""`wait head`, `wait database`, `status` and `--if-ahead`: how code and database compare."""

import json
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from conftest import RunCommand
from following import FollowedRun
from racing import GATED, finish, let_go_on, race, start, write_app
from servers import MariaDB, Postgres
from sidecar_runs import patiently, read_log

QUICK = "    pass"


@pytest.fixture
def new_app(tmp_path: Path) -> Path:
    """Write the newer code, with three revisions."""
    return write_app(tmp_path / "new", [QUICK, QUICK])


@pytest.fixture
def old_app(tmp_path: Path) -> Path:
    """Write the older code, which has the first two of them."""
    return write_app(tmp_path / "old", [QUICK])


def read_status(launch: RunCommand, folder: Path, url: str) -> dict[str, Any]:
    """Run `status` and give what it says of the main database."""
    result = launch(folder, "status", env={"DATABASE_URL": url})
    assert result.returncode == 0, result.stderr
    status = json.loads(result.stdout)
    assert status["version"] == 1
    state: dict[str, Any] = status["databases"]["default"]
    return state


def test_status_follows_an_upgrade(new_app: Path, database_url: str, launch: RunCommand) -> None:
    """`status` says empty, behind and at_head, with what is pending; it changes nothing."""
    env = {"DATABASE_URL": database_url}
    empty = read_status(launch, new_app, database_url)
    assert (empty["state"], empty["current"], len(empty["pending"])) == ("empty", [], 3)
    launch(new_app, "db", "upgrade", "r2", env=env)
    behind = read_status(launch, new_app, database_url)
    assert (behind["state"], behind["current"], behind["heads"]) == ("behind", ["r2"], ["r3"])
    assert behind["pending"] == [{"revision": "r3", "message": "step 3"}]
    launch(new_app, "db", "upgrade", env=env)
    assert read_status(launch, new_app, database_url)["state"] == "at_head"


def test_rolled_back_app_under_a_newer_database(
    new_app: Path, old_app: Path, database_url: str, launch: RunCommand
) -> None:
    """Older code refuses with 9, passes where it is told to ignore it, and its pods may start."""
    env = {"DATABASE_URL": database_url}
    launch(new_app, "db", "upgrade", env=env)
    refused = launch(old_app, "db", "upgrade", env=env)
    assert refused.returncode == 9
    assert "r3" in json.loads(refused.stderr.splitlines()[-1])["error"]["message"]
    assert launch(old_app, "--if-ahead", "ignore", "db", "upgrade", env=env).returncode == 0
    assert launch(old_app, "wait", "head", env=env).returncode == 0
    for command in (("downgrade",), ("stamp", "head"), ("current",)):
        assert launch(old_app, "db", *command, env=env).returncode == 9
    state = read_status(launch, old_app, database_url)
    assert (state["state"], state["unknown"]) == ("ahead", ["r3"])


def test_ahead_and_behind_at_once_is_refused(
    tmp_path: Path, copy_app: Any, launch: RunCommand
) -> None:
    """With one database ahead and another behind, `--if-ahead ignore` runs nothing: 9."""
    app = copy_app("multidb")
    urls = {
        name: f"sqlite:///{tmp_path / name}.db"
        for name in ("DATABASE_URL", "USERS_DATABASE_URL", "AUDIT_DATABASE_URL")
    }
    assert launch(app, "db", "upgrade", "5c1f7e20a9d4", env=urls).returncode == 0
    with sqlite3.connect(tmp_path / "DATABASE_URL.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'feedbeef0000'")
    connection.close()
    result = launch(app, "--if-ahead", "ignore", "db", "upgrade", env=urls)
    assert result.returncode == 9
    assert '"migration.applied"' not in result.stderr


def test_gate_opens_when_the_job_is_done(new_app: Path, database_url: str) -> None:
    """`wait head` returns once another process has brought the database to the head."""
    env = {"DATABASE_URL": database_url}
    gate = start(new_app, ("wait", "head"), env)
    gate.await_event("head.waiting")
    assert race(new_app, [env])[0].code == 0
    replica = finish(gate)
    assert replica.code == 0
    assert not replica.named("migration.applied")
    assert not replica.named("lock.acquired")


def test_gate_ends_with_its_timeout(new_app: Path, database_url: str, launch: RunCommand) -> None:
    """A database that is never at the head ends `wait head` with 10, and is told in the error."""

    def wait(limit: float) -> subprocess.CompletedProcess[str]:
        env = {"DATABASE_URL": database_url, "MIGRATE_HEAD_TIMEOUT": str(limit)}
        return launch(new_app, "wait", "head", env=env)

    result = patiently(wait, lambda result: '"head.waiting"' in result.stderr)
    assert result.returncode == 10
    assert json.loads(result.stderr.splitlines()[-1])["states"] == {"default": "empty"}


def test_gate_without_a_server_is_unavailable(new_app: Path, launch: RunCommand) -> None:
    """A database that was never reachable ends `wait head` with 5."""
    env = {"DATABASE_URL": "postgresql+psycopg://u:p@127.0.0.1:1/x", "MIGRATE_HEAD_TIMEOUT": "1"}
    assert launch(new_app, "wait", "head", env=env).returncode == 5


def test_wait_database_returns_when_it_answers(
    new_app: Path, database_url: str, launch: RunCommand
) -> None:
    """`wait database` ends with 0 and the server's version once a query is answered."""
    result = launch(new_app, "wait", "database", env={"DATABASE_URL": database_url})
    assert result.returncode == 0
    [ready] = [json.loads(line) for line in result.stderr.splitlines() if "database.ready" in line]
    assert ready["server_version"]


def test_status_of_an_unreachable_database(new_app: Path, launch: RunCommand) -> None:
    """`status` prints its JSON even if a database cannot be read, and ends with 5."""
    result = launch(
        new_app, "status", env={"DATABASE_URL": "postgresql+psycopg://u:p@127.0.0.1:1/x"}
    )
    assert result.returncode == 5
    assert json.loads(result.stdout)["databases"]["default"]["state"] == "unreachable"


@pytest.mark.parametrize("state", ["empty", "unread"])
def test_status_where_one_of_several_is_unreachable(
    state: str, copy_app: Callable[[str], Path], launch: RunCommand
) -> None:
    """What is known is printed, also where an env.py that connects to all of them reads none."""
    app = copy_app("multidb")
    if state == "unread":  # as upstream's does
        env_py = app / "migrations" / "env.py"
        every = "def run_online():\n    for one in migrate.db.engines.values():\n"
        every += "        one.connect().close()\n"
        env_py.write_text(env_py.read_text().replace("def run_online():\n", every))
    down = {"USERS_DATABASE_URL": "postgresql+psycopg://u:p@127.0.0.1:1/x"}
    result = launch(app, "status", env=down)
    assert result.returncode == read_log(result.stderr)[-1]["exit_code"] == 5
    states = {
        name: state["state"] for name, state in json.loads(result.stdout)["databases"].items()
    }
    assert states == {"default": state, "users": "unreachable", "audit": state}


def test_status_names_the_holder_of_the_lock(
    tmp_path: Path, database_url: str, launch: RunCommand
) -> None:
    """While a migration runs, `status` says who holds the lock, without taking it."""
    app = write_app(tmp_path / "slow", [GATED])
    holder = start(app, ("db", "upgrade"), {"DATABASE_URL": database_url})
    holder.await_event("lock.acquired")
    lock = read_status(launch, app, database_url)["lock"]
    let_go_on(app, "r2")
    assert finish(holder).code == 0
    assert lock["held"]
    assert lock["holder"]["pid"]
    assert lock["kind"] != "auto"


def test_upgrade_elsewhere(new_app: Path, postgres: Postgres, launch: RunCommand) -> None:
    """`--database-url` leads every connection to another server, the app's own engine included."""
    database = postgres.create_database()
    env = {"DATABASE_URL": "postgresql+psycopg://nobody:no@127.0.0.1:1/nowhere"}
    result = launch(new_app, "--database-url", database.url(), "db", "upgrade", env=env)
    assert result.returncode == 0, result.stderr
    assert read_status(launch, new_app, database.url())["state"] == "at_head"


@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
def test_bare_postgresql_url(
    new_app: Path, postgres: Postgres, launch: RunCommand, scheme: str
) -> None:
    """A URL as platforms hand it out works with the driver that is installed."""
    database = postgres.create_database()
    bare = database.url("").replace("postgresql", scheme, 1)
    result = launch(
        new_app,
        "--database-url",
        bare,
        "db",
        "upgrade",
        env={
            "DATABASE_URL": "postgresql+psycopg2://nobody:no@127.0.0.1:1/nowhere",
        },
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("scheme", ["mysql", "mariadb"])
def test_bare_mysql_url(new_app: Path, mariadb: MariaDB, launch: RunCommand, scheme: str) -> None:
    """The same for MariaDB and MySQL."""
    database = mariadb.create_database()
    bare = database.url("").replace("mysql", scheme, 1)
    env = {"DATABASE_URL": f"{scheme}+pymysql://nobody:no@127.0.0.1:1/nowhere"}
    result = launch(new_app, "--database-url", bare, "db", "upgrade", env=env)
    assert result.returncode == 0, result.stderr


def test_bind_leaves_the_other_databases_alone(
    tmp_path: Path, copy_app: Any, launch: RunCommand
) -> None:
    """With `--bind users` only that database is waited for, locked and read: others may be down."""
    app = copy_app("multidb")
    template = Path(__file__).parents[2] / "templates" / "flask-multidb" / "env.py"
    (app / "migrations" / "env.py").write_text(template.read_text())
    env = {
        "DATABASE_URL": f"sqlite:///{tmp_path}/main.db",
        "USERS_DATABASE_URL": f"sqlite:///{tmp_path}/users.db",
        "AUDIT_DATABASE_URL": "postgresql+psycopg://u:p@127.0.0.1:1/x",
    }
    result = launch(app, "db", "upgrade", "--bind", "users", env=env)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "users.db").exists()
    assert not (tmp_path / "main.db").exists()


def test_unknown_bind_is_a_usage_error(new_app: Path, tmp_path: Path, launch: RunCommand) -> None:
    """A `--bind` that no database has migrates nothing, and says so with 2."""
    env = {"DATABASE_URL": f"sqlite:///{tmp_path}/x.db"}
    result = launch(new_app, "db", "upgrade", "--bind", "nope", env=env)
    assert result.returncode == 2
    assert "default" in json.loads(result.stderr.splitlines()[-1])["error"]["message"]


@pytest.mark.parametrize("password", ["ab@S3cretWord", "ab@S3cretWord/x", "p@S3cretWord@y"])
def test_raw_at_sign_shows_no_part_of_a_password(
    new_app: Path, launch: RunCommand, password: str
) -> None:
    """A URL whose password holds an @ as it is has no clear end of it: 3, at once, unseen."""
    url = f"postgresql://u:{password}@127.0.0.1/d"
    env = {"DATABASE_URL": "sqlite:///x.db"}
    result = launch(new_app, "--database-url", url, "db", "upgrade", env=env)
    assert result.returncode == 3
    assert "S3cretWord" not in result.stderr


def test_outage_under_the_gate_is_unavailable(
    new_app: Path, tmp_path: Path, launch: RunCommand
) -> None:
    """A database that cannot be read up to the head timeout ends `wait head` with 5, not 10."""
    path = tmp_path / "x.db"
    env = {"DATABASE_URL": f"sqlite:///{path}"}
    launch(new_app, "db", "upgrade", "r1", env=env)

    def wait(limit: float) -> tuple[bool, int]:
        """Tell whether the gate has looked before the database was away, and how it ended."""
        with (
            FollowedRun(new_app, "--head-timeout", str(limit), "wait", "head", env=env) as gate,
            closing(sqlite3.connect(path, isolation_level=None)) as connection,
        ):
            # What is away from the beginning is waited for in another place.
            first = gate.await_event("head.waiting", "command.failed")
            connection.execute("BEGIN EXCLUSIVE")
            return first.get("states") == {"default": "behind"}, gate.finish()

    assert patiently(wait, lambda found: found[0], least=4) == (True, 5)


def test_help_waits_for_nothing(new_app: Path, launch: RunCommand) -> None:
    """`--help` of a subcommand is printed though the database is down."""
    env = {"DATABASE_URL": "sqlite:///x.db"}
    result = launch(
        new_app, "--database-url", "sqlite:////no/x.db", "db", "upgrade", "--help", env=env
    )
    assert result.returncode == 0
    assert "--sql" in result.stdout


def test_optional_branch(tmp_path: Path, database_url: str, launch: RunCommand) -> None:
    """A branch that nobody has applied keeps the gate closed, unless the others are named."""
    app = write_app(tmp_path / "app", [])
    (app / "migrations" / "versions" / "extra.py").write_text(
        "revision, down_revision, branch_labels = 'extra', 'r1', ('samples',)\n\n\n"
        "def upgrade():\n    pass\n"
    )
    (app / "migrations" / "versions" / "main.py").write_text(
        "revision, down_revision, branch_labels = 'main', 'r1', ('shop',)\n\n\n"
        "def upgrade():\n    pass\n"
    )
    env = {"DATABASE_URL": database_url, "MIGRATE_HEAD_TIMEOUT": "0"}
    assert launch(app, "db", "upgrade", "shop@head", env=env).returncode == 0
    assert launch(app, "wait", "head", env=env).returncode == 10
    assert launch(app, "wait", "head", "shop@head", env=env).returncode == 0
    assert launch(app, "wait", "head", "shop@head", "samples@head", env=env).returncode == 10
    assert launch(app, "wait", "head", "nix", env=env).returncode == 9
    assert launch(app, "status", "+1", env=env).returncode == 2
    status = json.loads(launch(app, "status", "shop@head", env=env).stdout)
    assert status["databases"]["default"]["state"] == "at_head"
    assert status["databases"]["default"]["pending"] == []
