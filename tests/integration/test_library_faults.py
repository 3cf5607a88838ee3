"""The faults of Flask-Migrate 4.1 that ours must not have, one test for each."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.script import Script
from alembic.util import CommandError

import flask_migrate
import old_environments as old
from conftest import clean_environment
from flask_migrate.cli import db as group
from flask_migrate.config import parse_version
from library import (
    MULTIDB,
    SINGLE,
    flask,
    make_project,
    query,
    tables_of,
    write_app,
    write_repository,
)

OLD_GET_ENGINE = "ignore:'get_engine' is deprecated:DeprecationWarning"


def test_functions_raise_and_only_the_command_line_exits(tmp_path: Path) -> None:
    """A function raises Alembic's own exception; `flask db` prints one line and exits with 1."""
    project = make_project(tmp_path)
    with project.app.app_context(), pytest.raises(CommandError, match="Path doesn't exist"):
        flask_migrate.upgrade()
    (result,) = flask(write_app(tmp_path), "db upgrade", fail=True)
    assert result.returncode == 1
    assert result.stderr.startswith("ERROR [flask_migrate] Error: Path doesn't exist")
    assert result.stderr.count("\n") == 1


def test_return_values(tmp_path: Path) -> None:
    """What Alembic's commands return, the functions return."""
    project = make_project(tmp_path)
    with project.app.app_context():
        flask_migrate.init()
        first = flask_migrate.revision(rev_id="aa")
        second = flask_migrate.revision(head="base", rev_id="bb")
        merged = flask_migrate.merge(revisions="heads", rev_id="cc")
        flask_migrate.upgrade()
        compared = flask_migrate.migrate(rev_id="dd")
        flask_migrate.upgrade()
        nothing = flask_migrate.migrate()
    assert [getattr(one, "revision", None) for one in (first, second, merged, compared)] == [
        *("aa", "bb", "cc", "dd")
    ]
    assert isinstance(merged, Script)
    assert nothing in (None, [])


def test_file_config_leaves_loggers_alone(tmp_path: Path) -> None:
    """Called as a function, no command switches off a logger or changes a level."""
    write_repository(tmp_path, old.VERSION_2)
    project = make_project(tmp_path)
    logger, root = logging.getLogger("shop.orders"), logging.getLogger()
    before = (root.level, [*root.handlers], logging.getLogger("alembic").level)
    with project.app.app_context():
        flask_migrate.migrate()
        flask_migrate.upgrade()
    assert not logger.disabled
    assert not logging.getLogger("flask_migrate").disabled
    assert before == (root.level, [*root.handlers], logging.getLogger("alembic").level)


SILENCING = SINGLE + "\nimport logging\n\nlogger = logging.getLogger('shop')\n"


def test_file_config_of_an_old_env_hides_no_error(tmp_path: Path) -> None:
    """From the command line, fileConfig sets up logging; the app still logs, errors still show."""
    write_repository(write_app(tmp_path, SILENCING), old.VERSION_2)
    text = (tmp_path / "migrations/env.py").read_text()
    (tmp_path / "migrations/env.py").write_text(
        text + "\nlogging.getLogger('shop').warning('the shop speaks')\n"
    )
    ini = tmp_path / "migrations/alembic.ini"
    ini.write_text(ini.read_text().replace(",flask_migrate\n", "\n"))
    *_, spoken, failed = flask(
        tmp_path, "db migrate", "db upgrade", "db upgrade nowhere", fail=True
    )
    assert "the shop speaks" in spoken.stderr
    assert "Running upgrade" in spoken.stderr
    assert "ERROR [flask_migrate] Error: Can't locate revision" in failed.stderr


def test_env_passing_compare_type_itself(tmp_path: Path) -> None:
    """An env.py from before 4.0 passes `compare_type` beside `**configure_args`: no TypeError."""
    environment = old.VERSION_2.replace("**state", "compare_type=True, **state")
    write_repository(write_app(tmp_path), environment)
    flask(tmp_path, "db migrate", "db upgrade", "db check")


def test_env_emptying_configure_args_and_binds(tmp_path: Path) -> None:
    """An env.py that pops what it finds breaks no later command of the process."""
    environment = old.VERSION_2 + (
        "\nstate.configure_args.pop('include_schemas')\n"
        "current_app.config['SQLALCHEMY_BINDS'].pop('users')\n"
    )
    write_repository(tmp_path, environment)
    project = make_project(tmp_path, "users", include_schemas=False)
    with project.app.app_context():
        for _ in range(3):
            flask_migrate.current()
    assert "users" in project.app.config["SQLALCHEMY_BINDS"]
    assert project.app.extensions["migrate"].configure_args["include_schemas"] is False


@pytest.mark.filterwarnings(OLD_GET_ENGINE)
def test_env_adding_to_configure_args_writes_no_empty_revision(tmp_path: Path) -> None:
    """A stock env.py puts its own function into `configure_args`: for that one run."""
    write_repository(tmp_path, old.VERSION_4)
    project = make_project(tmp_path)
    with project.app.app_context():
        flask_migrate.migrate()
        flask_migrate.upgrade()
        flask_migrate.migrate()
    assert len(project.revisions) == 1
    assert "process_revision_directives" not in project.app.extensions["migrate"].configure_args


def test_x_argument_of_the_group_arrives_once(tmp_path: Path) -> None:
    """`flask db -x a=1 upgrade` hands `a=1` to env.py once."""
    write_repository(
        write_app(tmp_path), "from alembic import context\n" + "print(context.config.cmd_opts.x)"
    )
    *_, result = flask(tmp_path, "db revision", "db -x a=1 upgrade")
    assert result.stdout.strip() == "['a=1']"


@pytest.mark.parametrize("option", ["", " --multidb"])
def test_no_deprecated_get_engine(tmp_path: Path, option: str) -> None:
    """The stock env.py takes `.engine`, so that `-W error` finds nothing."""
    write_app(tmp_path, MULTIDB)
    flask(tmp_path, "db init" + option, "db migrate", "db upgrade", warnings="error")


LATE = (
    MULTIDB.replace('users.db"}', 'users.db", "late": f"sqlite:///{HERE}/late.db"}')
    + """
class Late(db.Model):
    __bind_key__ = "late"
    id = db.Column(db.Integer, primary_key=True)
"""
)


def test_bind_added_after_the_first_revision(tmp_path: Path) -> None:
    """A bind added later needs no hand work in earlier revisions."""
    write_app(tmp_path, MULTIDB)
    flask(tmp_path, "db init --multidb", "db migrate --rev-id aa", "db upgrade")
    write_app(tmp_path, LATE)
    commands = "upgrade", "migrate --rev-id bb", "upgrade", "check", "downgrade base", "upgrade"
    flask(tmp_path, *(f"db {command}" for command in commands))
    assert tables_of(tmp_path / "late.db") == {"late"}


def test_multidb_sql_is_one_script(tmp_path: Path) -> None:
    """`--sql` prints one script, each database headed by a comment, and writes no file."""
    write_app(tmp_path, MULTIDB)
    flask(tmp_path, "db init --multidb", "db migrate")
    before = {*tmp_path.iterdir()}
    (result,) = flask(tmp_path, "db upgrade --sql")
    main, users = result.stdout.split("-- Database: users\n")
    assert main.startswith("-- Database: default\n")
    assert "CREATE TABLE person" in main
    assert "CREATE TABLE account" in users
    assert {*tmp_path.iterdir()} == before
    query_script(tmp_path / "again.db", users)
    assert tables_of(tmp_path / "again.db") == {"account"}


def query_script(path: Path, script: str) -> None:
    """Run a script in a SQLite file."""
    import sqlite3

    connection = sqlite3.connect(path)
    connection.executescript(script)
    connection.close()


PYPROJECT = [" --pyproject"] if flask_migrate.alembic_version >= (1, 16) else []


@pytest.mark.parametrize("option", ["", " --multidb", *PYPROJECT])
def test_percent_sign_in_the_path(tmp_path: Path, option: str) -> None:
    """A `%` in the path of the project or of the repository is only a letter."""
    folder = write_app(tmp_path / "100%d (s)", MULTIDB)
    commands = "init" + option, "migrate -m one", "upgrade", "check", "history", "downgrade"
    flask(folder, *(f"db -d 50%s {command}" for command in commands))
    assert [*(folder / "50%s/versions").glob("*_one.py")]


def test_merge_without_revisions(tmp_path: Path) -> None:
    """`merge` with nothing to merge is a usage error and writes nothing."""
    *_, result = flask(write_app(tmp_path), "db init", "db merge -m none", fail=True)
    assert result.returncode == 2
    assert "REVISIONS" in result.stderr
    assert not [*(tmp_path / "migrations/versions").glob("*.py")]
    project = make_project(tmp_path)
    with project.app.app_context(), pytest.raises(CommandError, match="Name the revisions"):
        flask_migrate.merge()


def test_migrate_sql(tmp_path: Path) -> None:
    """`migrate --sql` cannot work, and says why."""
    *_, result = flask(write_app(tmp_path), "db init", "db migrate --sql", fail=True)
    assert "comparing needs a database" in result.stderr
    assert result.returncode == 1


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("1.21.0b1", (1, 21, 0)),
        ("1.21b1", (1, 21, 0)),
        ("1.20.1", (1, 20, 1)),
        ("2", (2, 0, 0)),
        ("1.13.0.dev0+g123", (1, 13, 0)),
    ],
)
def test_alembic_version_of_a_beta(text: str, version: tuple[int, int, int]) -> None:
    """`alembic_version` is three numbers, whatever stands behind them."""
    assert parse_version(text) == version
    assert len(flask_migrate.alembic_version) == 3


def test_database_ahead_of_the_code(tmp_path: Path) -> None:
    """After the code went back, the error names the revision and what to do."""
    write_app(tmp_path)
    flask(tmp_path, "db init", "db revision --rev-id aa", "db upgrade")
    query(tmp_path / "main.db", "UPDATE alembic_version SET version_num = 'later'")
    for command in ("upgrade", "downgrade", "current", "migrate", "check", "stamp aa"):
        (result,) = flask(tmp_path, f"db {command}", fail=True)
        assert "ahead of this code" in result.stderr, result
        assert "'later'" in result.stderr
    (given,) = flask(tmp_path, "db upgrade nowhere", fail=True)
    assert "ahead" not in given.stderr
    assert "'nowhere' in migrations" in given.stderr


def test_database_not_up_to_date(tmp_path: Path) -> None:
    """`migrate` on a database that is behind shows where it is and where the head is."""
    write_app(tmp_path)
    *_, empty = flask(
        tmp_path,
        "db init",
        "db revision --rev-id aa",
        "db revision --rev-id bb",
        "db migrate",
        fail=True,
    )
    assert "it is at nothing. The head is bb" in empty.stderr
    *_, behind = flask(tmp_path, "db upgrade aa", "db check", fail=True)
    assert "it is at aa. The head is bb" in behind.stderr


def test_no_models_were_imported(tmp_path: Path) -> None:
    """Comparing without any model warns before it proposes to drop every table."""
    write_app(tmp_path)
    flask(tmp_path, "db init", "db migrate", "db upgrade")
    write_app(tmp_path, SINGLE.split("class Person")[0])
    (result,) = flask(tmp_path, "db migrate")
    warning = result.stderr.index("No models were imported, so every table")
    assert "(person)" in result.stderr
    assert warning < result.stderr.index("Detected removed table")
    (quiet,) = flask(tmp_path, "db revision")
    assert "No models" not in quiet.stderr


HIDING = {
    "all names": ("include_name=lambda name, type_, _: type_ != 'table'", False),
    "all objects": ("include_object=lambda o, n, type_, *_: type_ != 'table'", False),
    "others": ("include_name=lambda name, type_, _: name != 'other'", True),
}


@pytest.mark.parametrize("hidden", HIDING)
def test_tables_that_are_hidden_are_not_dropped(tmp_path: Path, hidden: str) -> None:
    """What the application hides from autogenerate is not called about to be dropped."""
    argument, dropped = HIDING[hidden]
    write_app(tmp_path)
    flask(tmp_path, "db init", "db migrate", "db upgrade")
    source = SINGLE.split("class Person")[0].replace("(app, db)", f"(app, db, {argument})")
    write_app(tmp_path, source)
    (result,) = flask(tmp_path, "db check", fail=dropped)
    assert ("would be dropped (person)" in result.stderr) is dropped


def test_types_are_shipped() -> None:
    """The package carries `py.typed`; `tests/typing` shows what that promises."""
    assert (Path(flask_migrate.__file__).parent / "py.typed").is_file()


def test_alembic_is_not_imported_with_the_application(tmp_path: Path) -> None:
    """A web worker that creates its application loads neither Alembic nor Mako."""
    write_app(tmp_path)
    program = "import app, sys; print([m for m in ('alembic', 'mako') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_options_of_alembic_that_upstream_lacks() -> None:
    """What Alembic's command line has, ours has; the parity test holds the whole list."""
    options = {
        name: {flag for param in command.params for flag in param.opts}
        for name, command in group.commands.items()
    }
    assert "--check-heads" in options["current"]
    assert "--splice" in options["merge"]
    assert "--depends-on" in options["revision"] & options["migrate"]
    assert "--sql" in options["ensure-version"]
    assert "--pyproject" in options["init"]
    for name in ("upgrade", "downgrade", "stamp", "current", "check"):
        assert "--bind" in options[name]
    assert group.commands["stamp"].params[-1].nargs == -1
