"""Every command of `flask db` on fresh applications, each under `python -W error`."""

from pathlib import Path

import pytest

from library import HEAD, MULTIDB, PERSON, SINGLE, flask, tables_of, write_app

# Each line is one command; together they use every subcommand.
STORY = (
    "db list-templates",
    "db init",
    "db revision -m empty --rev-id aa",
    "db upgrade",
    "db migrate -m people --rev-id bb",
    "db upgrade",
    "db check",
    "db current -v",
    "db heads -v",
    "db history -i",
    "db show bb",
    "db downgrade",
    "db stamp bb",
    "db stamp aa",
    "db revision -m side --rev-id cc --head aa --splice",
    "db branches -v",
    "db merge -m join bb cc --rev-id dd",
    "db upgrade dd",
    "db edit aa",
    "db downgrade base",
    "db ensure-version",
)


def test_every_command_of_a_fresh_app(tmp_path: Path) -> None:
    """Each subcommand works as `python -W error -m flask db ...`, in an order that people use."""
    write_app(tmp_path)
    results = flask(tmp_path, *STORY, env={"EDITOR": "true"})
    assert not [result for result in results if "Traceback" in result.stderr]
    assert len([*(tmp_path / "migrations/versions").glob("*.py")]) == 4


def test_story_names_every_command() -> None:
    """The story above leaves no subcommand out."""
    from flask_migrate.cli import db

    assert {line.split()[1] for line in STORY} == {*db.commands}


ROUND = ("init", "migrate -m one", "upgrade", "downgrade", "upgrade", "check")


def run_round(
    folder: Path, group: str = "db", init: str = "", env: dict[str, str] | None = None
) -> None:
    """Make a repository, migrate up, down and up again."""
    commands = [f"{group} {name}" for name in ROUND]
    commands[0] += init
    flask(folder, *commands, env=env)
    assert tables_of(folder / "main.db") == {"person"}


def test_multidb(tmp_path: Path) -> None:
    """`--multidb` makes a repository for the main database and its binds."""
    run_round(write_app(tmp_path, MULTIDB), init=" --multidb")
    assert tables_of(tmp_path / "users.db") == {"account"}


@pytest.mark.parametrize("options", [" --package", " --multidb --package"])
def test_package(tmp_path: Path, options: str) -> None:
    """`--package` makes the repository and its versions importable."""
    run_round(write_app(tmp_path, MULTIDB if "multidb" in options else SINGLE), init=options)
    assert (tmp_path / "migrations/__init__.py").is_file()
    assert (tmp_path / "migrations/versions/__init__.py").is_file()


@pytest.mark.parametrize("slash", ["", "/"])
def test_template_by_path(tmp_path: Path, slash: str) -> None:
    """A template with a slash in it is the path of a folder, with or without one at its end."""
    from flask_migrate.config import find_templates

    write_app(tmp_path)
    own = tmp_path / "own"
    own.mkdir()
    for file in (find_templates() / "flask").iterdir():
        (own / file.name).write_text(file.read_text().replace("Revises:", "Follows:"))
    run_round(tmp_path, init=f" -t ./own{slash}")
    (revision,) = (tmp_path / "migrations/versions").glob("*.py")
    assert "Follows:" in revision.read_text()


@pytest.mark.parametrize("name", ["flask", "flask-multidb"])
def test_template_by_name(tmp_path: Path, name: str) -> None:
    """`-t` names a template of ours."""
    run_round(write_app(tmp_path), init=f" -t {name}")


def test_group_of_another_name(tmp_path: Path) -> None:
    """`command=` names the group, and the variables with it."""
    write_app(tmp_path, SINGLE.replace("Migrate(app, db)", "Migrate(app, db, command='database')"))
    run_round(tmp_path, "database", env={"FLASK_DATABASE_DIRECTORY": "elsewhere"})
    assert (tmp_path / "elsewhere/env.py").is_file()


@pytest.mark.parametrize(
    "arguments", ["app, db, Path('deep') / 'er'", "app, db, directory=HERE / 'deep' / 'er'"]
)
def test_directory_as_path(tmp_path: Path, arguments: str) -> None:
    """`directory` may be a Path, relative to the working directory or absolute."""
    run_round(write_app(tmp_path, SINGLE.replace("Migrate(app, db)", f"Migrate({arguments})")))
    assert (tmp_path / "deep/er/env.py").is_file()


def test_two_phases(tmp_path: Path) -> None:
    """`Migrate()` and then `init_app()`, in a factory."""
    source = f"""{HEAD.replace("app = Flask", "app = _app = Flask").replace("app = _app", "app")}
db = SQLAlchemy(app)
migrate = Migrate()
migrate.init_app(app, db, "elsewhere", render_as_batch=False)
{PERSON}"""
    run_round(write_app(tmp_path, source))
    (revision,) = (tmp_path / "elsewhere/versions").glob("*.py")
    assert "batch" not in revision.read_text()


def test_directory_variable(tmp_path: Path) -> None:
    """`FLASK_DB_DIRECTORY` is `--directory` of the group."""
    run_round(write_app(tmp_path), env={"FLASK_DB_DIRECTORY": "elsewhere"})
    assert (tmp_path / "elsewhere/env.py").is_file()
    assert not (tmp_path / "migrations").exists()


def test_option_variables(tmp_path: Path) -> None:
    """A command's options come from `FLASK_DB_<COMMAND>_<OPTION>` variables too."""
    write_app(tmp_path)
    flask(tmp_path, "db init", "db migrate", env={"FLASK_DB_MIGRATE_MESSAGE": "from outside"})
    assert [*(tmp_path / "migrations/versions").glob("*_from_outside.py")]
    (sql,) = flask(tmp_path, "db upgrade", env={"FLASK_DB_UPGRADE_SQL": "1"})
    assert "CREATE TABLE person" in sql.stdout
    assert tables_of(tmp_path / "main.db") == set()


def test_directory_on_group_and_command(tmp_path: Path) -> None:
    """`-d` stands on the group or on the command, and the command's own wins."""
    write_app(tmp_path)
    flask(
        tmp_path,
        "db -d one init",
        "db init -d two",
        "db -d one init -d three",
        "db -d two revision --rev-id aa",
        "db heads -d two",
    )
    assert sorted(p.parent.name for p in tmp_path.glob("*/env.py")) == ["one", "three", "two"]


X_PRINTER = """
from alembic import context
print("ARGUMENTS", context.get_x_argument(), flush=True)
"""


def test_x_arguments_arrive_once(tmp_path: Path) -> None:
    """`-x` stands on the group, on the command or on both; each arrives once, in that order."""
    write_app(tmp_path)
    flask(tmp_path, "db init", "db revision")
    (tmp_path / "migrations/env.py").write_text(X_PRINTER)
    group, command, both = flask(
        tmp_path, "db -x a=1 upgrade", "db upgrade -x a=1 -x b", "db -x a=1 upgrade -x b=2"
    )
    assert "ARGUMENTS ['a=1']" in group.stdout
    assert "ARGUMENTS ['a=1', 'b']" in command.stdout
    assert "ARGUMENTS ['a=1', 'b=2']" in both.stdout
    (checked,) = flask(tmp_path, "db -x a=1 current")
    assert "ARGUMENTS ['a=1']" in checked.stdout


def test_relative_revisions(tmp_path: Path) -> None:
    """`-1` is a revision, before or behind options; the value of an option is not."""
    write_app(tmp_path)
    *_, down, message = flask(
        tmp_path,
        "db init",
        "db revision --rev-id aa",
        "db revision --rev-id bb",
        "db upgrade aa",
        "db upgrade +1",
        "db downgrade -1 --tag -2",
        "db revision -m -3 --rev-id cc",
    )
    assert "Running downgrade bb -> aa" in down.stderr
    assert "cc_3.py" in message.stdout


def test_unknown_option_is_a_usage_error(tmp_path: Path) -> None:
    """A misspelt option ends with click's own exit code."""
    *_, result = flask(write_app(tmp_path), "db upgrade --sqll", fail=True)
    assert result.returncode == 2
    assert "--sqll" in result.stderr
