"""What a run says that it reached is what the databases hold, seen from a connection of its own."""

import sys
from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine, inspect

from app_code import write_app
from conftest import Run
from servers import USER, Server
from sidecar_runs import Launcher, append

STATEMENT = "connection.exec_driver_sql('SELECT 1')"
COMMITTED = f"{STATEMENT}; connection.commit()"


FLASK = [sys.executable, "-m", "flask", "db"]
OWN = """

@app.cli.commands["db"].command("own")
def own():
    import flask_migrate

    flask_migrate.upgrade()
"""
CALLER = """
import app, flask_migrate
from sqlalchemy import create_engine

engine = create_engine(app.app.config["SQLALCHEMY_DATABASE_URI"])
with app.app.app_context(), engine.connect() as connection:
    app.CALLER.append(connection)
    connection.exec_driver_sql("SELECT 1")
    flask_migrate.upgrade()
    connection.commit()
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """Return an application with one revision."""
    return write_app(tmp_path / "app")


def prepare(app: Path, statement: str, behind: str = "") -> None:
    """Let `env.py` run a statement on its connection before it configures Alembic.

    Args:
        app: the application.
        statement: what runs there.
        behind: what runs behind the migrations.
    """
    file = app / "migrations" / "env.py"
    text = file.read_text()
    before = "        context.configure(connection=connection"
    assert text.count(before) == 1
    text = text.replace(before, f"        {statement}\n{before}")
    if behind:
        run = "            context.run_migrations("
        start = text.index(run, text.index(statement))
        end = text.index(")\n", start) + 2
        text = f"{text[:end]}        {behind}\n{text[end:]}"
    file.write_text(text)


def has_version(url: str) -> bool:
    """Tell whether the database has a revision in its version table."""
    engine = create_engine(url, poolclass=NullPool)
    if not inspect(engine).has_table("alembic_version"):
        return False
    with engine.connect() as connection:
        return bool(connection.exec_driver_sql("SELECT version_num FROM alembic_version").all())


@pytest.mark.parametrize("command", ["upgrade", "stamp head"])
def test_transaction_that_nobody_commits(
    command: str, database_url: str, app: Path, launch: Launcher
) -> None:
    """An `env.py` whose first statement begins a transaction of its own must commit it."""
    prepare(app, STATEMENT)
    result = launch(app, "db", *command.split(), env={"DATABASE_URL": database_url})
    assert result.returncode == result.last["exit_code"] == 8
    assert "hat ran was not committed" in result.last["error"]["message"]
    assert "connection.commit()" in result.last["hint"]
    assert result.last["kept"] == []
    # Where DDL commits by itself the table may be there, whatever the version table says.
    stays = command == "upgrade" and not database_url.startswith("postgresql")
    assert result.last["rolled_back"] == ([] if stays else ["a1"])
    assert result.last.get("unfinished", []) == (["a1"] if stays else [])
    assert not has_version(database_url)


@pytest.mark.parametrize("command", ["upgrade", "stamp head"])
def test_transaction_that_is_committed(
    command: str, database_url: str, app: Path, launch: Launcher
) -> None:
    """One that commits what it began is none of our business."""
    prepare(app, COMMITTED)
    result = launch(app, "db", *command.split(), env={"DATABASE_URL": database_url})
    assert result.returncode == 0
    assert has_version(database_url)


@pytest.mark.parametrize("is_committed", [True, False])
def test_connection_that_env_py_keeps(
    is_committed: bool, database_url: str, app: Path, launch: Launcher
) -> None:
    """On a connection that the application holds open all looks well that nobody else will see."""
    append(app / "app.py", "\nwith app.app_context():\n    KEPT = db.engine.connect()\n")
    file = app / "migrations" / "env.py"
    text = file.read_text()
    before = "    with get_engine().connect() as connection:\n"
    assert text.count(before) == 1
    kept = f"    import app\n    connection = app.KEPT\n    {STATEMENT}\n    if True:\n"
    text = text.replace(before, kept)
    if is_committed:
        run = "            context.run_migrations()\n"
        start = text.rindex(run) + len(run)
        text = f"{text[:start]}        connection.commit()\n{text[start:]}"
    file.write_text(text)
    result = launch(app, "db", "upgrade", env={"DATABASE_URL": database_url})
    assert result.returncode == (0 if is_committed else 8), result.last
    assert has_version(database_url) is is_committed
    if not is_committed:
        assert "hat ran was not committed" in result.last["error"]["message"]


# How else the tables are found, or the rights to read them had, than by a login alone.
ELSEWHERE = {
    "search path": "connection.exec_driver_sql('SET search_path = app, public')",
    "role": (
        "connection.exec_driver_sql('SET ROLE owner_of_app'); "
        "connection.exec_driver_sql('SET search_path = app')"
    ),
}


@pytest.mark.parametrize("how", ELSEWHERE)
def test_version_table_that_a_login_does_not_find(
    how: str, postgres: Server, app: Path, launch: Launcher
) -> None:
    """What `env.py` sets for its connection is set where the databases are read back."""
    database = postgres.create_database()
    env = {"DATABASE_URL": database.url()}
    if how == "search path":
        assert launch(app, "db", "stamp", "head", env=env).returncode == 0
        assert launch(app, "db", "stamp", "base", env=env).returncode == 0
    postgres.execute("DROP ROLE IF EXISTS owner_of_app", "CREATE ROLE owner_of_app")
    postgres.execute(
        f"ALTER ROLE {USER} NOINHERIT",
        f"GRANT owner_of_app TO {USER}",
        f"CREATE SCHEMA app AUTHORIZATION {USER if how == 'search path' else 'owner_of_app'}",
        database=database.name,
    )
    prepare(app, f"{ELSEWHERE[how]}; connection.commit()")
    result = launch(app, "db", "upgrade", env=env)
    postgres.drop_database(database.name)
    assert result.returncode == 0, result.last
    assert list(result.last["to"].values()) == [["a1"]]


def test_downgrade_that_nobody_commits(database_url: str, app: Path, launch: Launcher) -> None:
    """The way back is looked at as well."""
    env = {"DATABASE_URL": database_url}
    assert launch(app, "db", "upgrade", env=env).returncode == 0
    prepare(app, STATEMENT)
    assert launch(app, "db", "downgrade", "base", env=env).returncode == 8
    assert has_version(database_url)


@pytest.mark.parametrize("command", ["upgrade", "stamp head", "ensure-version", "downgrade base"])
def test_transaction_that_nobody_commits_in_the_library(
    command: str, database_url: str, app: Path, launch: Launcher, run: Run
) -> None:
    """`flask db` too ends badly where its work is lost, and so does a function of the library."""
    env = {"DATABASE_URL": database_url}
    if command.startswith("downgrade"):
        assert launch(app, "db", "upgrade", env=env).returncode == 0
    prepare(app, STATEMENT)
    done = run(FLASK + command.split(), cwd=app, env=env)
    if command == "ensure-version" and not database_url.startswith("postgresql"):
        assert done.returncode == 0  # where DDL commits by itself, the table is there
        return
    assert done.returncode == 1
    assert "What ran was not committed: env.py" in done.stderr
    assert has_version(database_url) == command.startswith("downgrade")


@pytest.mark.parametrize("command", ["ensure-version", "own"])
def test_transaction_of_a_command_that_nobody_commits(
    command: str, database_url: str, app: Path, launch: Launcher
) -> None:
    """Whatever the command is, 0 is for what is in the database."""
    prepare(app, STATEMENT)
    with (app / "app.py").open("a") as file:
        file.write(OWN)
    result = launch(app, "db", command, env={"DATABASE_URL": database_url})
    stays = command == "ensure-version" and not database_url.startswith("postgresql")
    assert result.returncode == (0 if stays else 8)
    assert not has_version(database_url)


@pytest.mark.parametrize(
    ("before", "behind"),
    [
        (COMMITTED, ""),
        (STATEMENT, "connection.commit()"),
        (
            "connection = connection.execution_options(isolation_level='AUTOCOMMIT'); " + STATEMENT,
            "",
        ),
        ("connection.begin()", "connection.get_transaction().commit()"),
    ],
    ids=["before", "behind", "autocommit", "own transaction"],
)
def test_commit_of_env_py(
    before: str, behind: str, database_url: str, app: Path, launch: Launcher, run: Run
) -> None:
    """Who commits, wherever and however, hears nothing of it, of neither program."""
    prepare(app, before, behind)
    env = {"DATABASE_URL": database_url}
    assert launch(app, "db", "upgrade", env=env).returncode == 0
    done = run([*FLASK, "downgrade", "base"], cwd=app, env=env)
    assert done.returncode == 0, done.stderr
    assert not has_version(database_url)
    done = run([*FLASK, "upgrade"], cwd=app, env=env)
    assert done.returncode == 0, done.stderr
    assert has_version(database_url)
    # Nothing to commit, nothing lost.
    assert run([*FLASK, "upgrade"], cwd=app, env=env).returncode == 0


def test_dry_run_of_env_py(database_url: str, app: Path, run: Run) -> None:
    """Alembic's own transaction is rolled back on purpose, to try a migration: that is no fault."""
    file = app / "migrations" / "env.py"
    text = file.read_text()
    line = "            context.run_migrations()\n"
    head, _, tail = text.rpartition(line)
    file.write_text(f"{head}{line}            context.get_context().connection.rollback()\n{tail}")
    done = run([*FLASK, "upgrade"], cwd=app, env={"DATABASE_URL": database_url})
    assert "was not committed" not in done.stderr


def test_transaction_of_a_caller(app: Path, tmp_path: Path, run: Run) -> None:
    """One that the caller of the function holds open is the caller's, to commit or not."""
    file = app / "migrations" / "env.py"
    text = file.read_text()
    line = next(line for line in text.splitlines() if ".connect() as connection" in line)
    indent = line[: len(line) - len(line.lstrip())]
    given = f"{indent}from app import CALLER\n{indent}for connection in CALLER:"
    file.write_text(text.replace(line, given))
    with (app / "app.py").open("a") as source:
        source.write("\nCALLER = []\n")
    program = app / "program.py"
    program.write_text(CALLER)
    url = f"sqlite:///{tmp_path}/caller.db"
    done = run([sys.executable, program], cwd=app, env={"DATABASE_URL": url})
    assert done.returncode == 0, done.stderr
    assert has_version(url)
