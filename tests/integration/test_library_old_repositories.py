"""Repositories that Flask-Migrate 2 to 4 wrote run untouched, as commands and as calls."""

from pathlib import Path

import pytest
from flask_sqlalchemy import SQLAlchemy

import flask_migrate
import old_environments as old
from conftest import RunCommand
from library import (
    MULTIDB,
    SINGLE,
    flask,
    make_project,
    query,
    tables_of,
    versions_of,
    write_app,
    write_repository,
)
from servers import Postgres
from sidecar_runs import read_log

SHAPES = {
    "first releases": old.EXTENSION_METADATA,
    "2": old.VERSION_2,
    "3": old.VERSION_3,
    "4": old.VERSION_4,
}
MULTIDB_SHAPES = {"2": old.MULTIDB_2, "4": old.MULTIDB_4}

# Old env.py files call `db.get_engine()` first, of which Flask-SQLAlchemy 3 warns.
pytestmark = pytest.mark.filterwarnings("ignore:'get_engine' is deprecated:DeprecationWarning")


@pytest.fixture(params=SHAPES)
def single(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return the folder of an application with one database and an old repository."""
    write_repository(write_app(tmp_path, SINGLE), SHAPES[request.param])
    return tmp_path


@pytest.fixture(params=MULTIDB_SHAPES)
def multidb(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return the folder of an application with two databases and an old repository."""
    write_repository(
        write_app(tmp_path, MULTIDB), MULTIDB_SHAPES[request.param], old.MULTIDB_SCRIPT
    )
    return tmp_path


def test_single(single: Path) -> None:
    """One database: compare, upgrade, print SQL, downgrade."""
    *_, sql, empty = flask(
        single,
        "db migrate -m people",
        "db upgrade",
        "db check",
        "db current",
        "db downgrade",
        "db upgrade",
        "db upgrade --sql",
        "db stamp head",
        warnings="default",
    )
    assert "CREATE TABLE person" in sql.stdout or "CREATE TABLE person" in empty.stdout
    assert tables_of(single / "main.db") == {"person"}


def test_multidb(multidb: Path) -> None:
    """Several databases: each gets its own tables, and `--sql` writes a file for each."""
    flask(
        multidb,
        "db migrate -m people",
        "db upgrade",
        "db check",
        "db downgrade",
        "db upgrade",
        "db upgrade --sql",
        warnings="default",
    )
    assert tables_of(multidb / "main.db") == {"person"}
    assert tables_of(multidb / "users.db") == {"account"}
    assert "CREATE TABLE person" in (multidb / ".sql").read_text()
    assert "CREATE TABLE account" in (multidb / "users.sql").read_text()


def test_multidb_with_bind(multidb: Path) -> None:
    """`--bind` touches one database only, though this env.py knows nothing of it."""
    *_, current = flask(
        multidb,
        "db migrate --rev-id aa",
        "db upgrade --bind users",
        "db check --bind users",
        "db current --bind users",
        warnings="default",
    )
    assert current.stdout.split() == ["aa", "(head)"]
    assert tables_of(multidb / "main.db") == set()
    assert tables_of(multidb / "users.db") == {"account"}
    flask(multidb, "db upgrade --bind default", "db downgrade --bind users", warnings="default")
    assert tables_of(multidb / "main.db") == {"person"}
    assert tables_of(multidb / "users.db") == set()
    flask(multidb, "db stamp --bind users aa", warnings="default")
    assert versions_of(multidb / "users.db") == ["aa"]
    (multidb / "users.db").unlink()
    flask(multidb, "db stamp --bind default aa", warnings="default")
    assert not (multidb / "users.db").exists()


def test_multidb_sql_that_cannot_be_written(multidb: Path) -> None:
    """Where the SQL files of an old env.py cannot be written, one clear line says so.

    A folder stands where the file would: it refuses the super-user too.
    """
    flask(multidb, "db migrate", warnings="default")
    (multidb / ".sql").mkdir()
    (result,) = flask(multidb, "db upgrade --sql", fail=True, warnings="default")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "ERROR [flask_migrate] Error: .sql cannot be written" in result.stderr
    assert "flask-multidb" in result.stderr


def test_multidb_repository_gets_a_bind(tmp_path: Path) -> None:
    """A bind added later has no functions in old revisions; upgrade and downgrade pass them."""
    write_repository(write_app(tmp_path, MULTIDB), old.MULTIDB_4, old.MULTIDB_SCRIPT)
    flask(tmp_path, "db migrate --rev-id aa", "db upgrade", warnings="default")
    more = MULTIDB.replace('main.db"', 'main.db"', 1).replace(
        'users.db"}', 'users.db", "late": f"sqlite:///{HERE}/late.db"}'
    )
    more += """
class Late(db.Model):
    __bind_key__ = "late"
    id = db.Column(db.Integer, primary_key=True)
"""
    write_app(tmp_path, more)
    flask(
        tmp_path,
        "db upgrade",
        "db migrate --rev-id bb",
        "db upgrade",
        "db check",
        "db downgrade base",
        "db upgrade",
        warnings="default",
    )
    assert tables_of(tmp_path / "late.db") == {"late"}


def test_percent_sign_in_the_path(tmp_path: Path) -> None:
    """An old env.py reads whole sections of alembic.ini, `here` among them."""
    folder = write_app(tmp_path / "100%d")
    write_repository(folder, old.VERSION_2)
    flask(folder, "db migrate", "db upgrade")
    assert tables_of(folder / "main.db") == {"person"}


@pytest.mark.parametrize("shape", SHAPES)
def test_called_as_functions(shape: str, tmp_path: Path) -> None:
    """The functions run an old env.py as often as one likes."""
    write_repository(tmp_path, SHAPES[shape])
    project = make_project(tmp_path)
    with project.app.app_context():
        for _ in range(2):
            flask_migrate.migrate()
            flask_migrate.upgrade()
            flask_migrate.downgrade(revision="base")
            flask_migrate.upgrade()
    assert len(project.revisions) == (2 if shape == "first releases" else 1)


# What users of the stock files above changed in them.
CHANGES = {
    "passes a default itself": "context.configure(compare_type=True, render_as_batch=False, ",
    "takes a default out": (
        'state.configure_args.pop("compare_type"); del state.configure_args["render_as_batch"]\n'
        "        context.configure("
    ),
    "empties the arguments": "state.configure_args.clear()\n        context.configure(",
    "reads a default": (
        'assert state.configure_args["compare_type"] is True\n        context.configure('
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_by_hand(change: str, tmp_path: Path) -> None:
    """An env.py may pass, read, or take out what `configure_args` holds, run after run."""
    online = "        context.configure(\n            connection"
    environment = old.VERSION_3.replace(online, "        " + CHANGES[change] + "connection")
    assert environment != old.VERSION_3
    write_repository(tmp_path, environment)
    project = make_project(tmp_path, include_schemas=False)
    with project.app.app_context():
        flask_migrate.migrate()
        flask_migrate.upgrade()
        flask_migrate.check()
        arguments = project.app.extensions["migrate"].configure_args
    assert arguments["compare_type"] is arguments["render_as_batch"] is True
    assert arguments["include_schemas"] is False


def longer_names(db: SQLAlchemy) -> None:
    """Declare a column whose type differs from the database's below."""
    db.Table("person", db.Column("id", db.Integer, primary_key=True), db.Column("n", db.Text))


@pytest.mark.parametrize(
    ("argument", "revisions"), [("", 1), ("compare_type=False, ", 0)], ids=["default", "of env.py"]
)
def test_compare_type(argument: str, revisions: int, tmp_path: Path) -> None:
    """Types are compared by default, and not where env.py says no."""
    environment = old.VERSION_3.replace("**state", argument + "**state")
    write_repository(tmp_path, environment)
    project = make_project(tmp_path, models=longer_names)
    query(tmp_path / "main.db", "CREATE TABLE person (id INTEGER NOT NULL PRIMARY KEY, n INTEGER)")
    with project.app.app_context():
        flask_migrate.migrate()
    assert len(project.revisions) == revisions


# What they wrote as the URL of `engine_from_config`, which the INI file then interpolates.
URLS = {
    "2.0 to 2.4": 'current_app.config["SQLALCHEMY_DATABASE_URI"]',
    "2.5.3 to 2.6.0": 'str(state.db.engine.url).replace("%", "%%")',
}


@pytest.mark.parametrize("command", ["flask", "sidecar", "elsewhere"])
@pytest.mark.parametrize("release", URLS)
def test_password_in_the_url_of_old_files(
    release: str, command: str, tmp_path: Path, postgres15: Postgres, launch: RunCommand
) -> None:
    """A password, with a percent sign or without, is the application's and no `***`."""
    database = postgres15.create_database()
    plain = 'current_app.config["SQLALCHEMY_DATABASE_URI"].replace("%", "%%")'
    assert plain in old.VERSION_2
    own = "postgresql+psycopg://shop:no@127.0.0.1:1/x" if command == "elsewhere" else database.url()
    source = SINGLE.replace('f"sqlite:///{HERE}/main.db"', repr(own))
    assert own in source
    write_repository(write_app(tmp_path, source), old.VERSION_2.replace(plain, URLS[release]))
    (tmp_path / "migrations" / "versions" / "aa.py").write_text(
        "revision, down_revision = 'aa', None\n\n\ndef upgrade():\n    pass\n"
    )
    if command == "flask":
        *_, current = flask(tmp_path, "db upgrade", "db current", warnings="default")
        assert current.stdout.split() == ["aa", "(head)"]
    else:
        options = ["--database-url", database.url()] if command == "elsewhere" else []
        result = launch(tmp_path, *options, "db", "upgrade")
        assert result.returncode == 0, result.stderr
        assert read_log(result.stderr)[-1]["to"] == {"default": ["aa"]}
    postgres15.drop_database(database.name)
