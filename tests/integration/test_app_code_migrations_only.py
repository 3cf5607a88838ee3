"""A migration repository and a URL suffice: no application, and none of its packages."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import NullPool, create_engine

from app_code import (
    REVISION,
    find_events,
    install_packages,
    read_last,
    write_app,
    write_repository,
)
from conftest import APPS
from schema import describe_schema
from servers import Postgres

if TYPE_CHECKING:
    from conftest import RunCommand

# The variables that name an app's databases, and those that name them without the app.
VARIABLES = {
    "shop": {"DATABASE_URL": "MIGRATE_DATABASE_URL"},
    "multidb": {
        "DATABASE_URL": "SQLALCHEMY_DATABASE_URI",
        "USERS_DATABASE_URL": "MIGRATE_DATABASE_URL__USERS",
        "AUDIT_DATABASE_URL": "MIGRATE_DATABASE_URL__AUDIT",
    },
    "legacy": {"DATABASE_URL": "DATABASE_URL"},
}


def copy_repository(name: str, folder: Path) -> Path:
    """Copy the migrations of an example app, and nothing else of it; return their folder."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(APPS / name / "migrations", folder / "migrations", ignore=ignored)
    return folder


@pytest.mark.parametrize("name", VARIABLES)
def test_same_schema_as_with_the_app(
    name: str,
    create_database_url: Callable[[], str],
    copy_app: Callable[[str], Path],
    tmp_path: Path,
    launch: "RunCommand",
) -> None:
    """An upgrade without the app ends in the very schema that one with it makes, and goes back."""
    variables = VARIABLES[name]
    with_app = {variable: create_database_url() for variable in variables}
    alone = {variable: create_database_url() for variable in variables.values()}
    folder = copy_repository(name, tmp_path / "alone")

    done = launch(copy_app(name), "db", "upgrade", env=with_app)
    assert done.returncode == 0, done.stderr
    result = launch(folder, "db", "upgrade", env=alone)

    assert result.returncode == 0, result.stderr
    [loaded] = find_events(result, "app.loaded")
    assert loaded["source"] == "migrations-only"
    # What the application would add is not known.
    assert "--version-table" in loaded["hint"]
    for theirs, ours in variables.items():
        assert describe_schema(with_app[theirs]) == describe_schema(alone[ours])
        assert len(describe_schema(alone[ours])) > 1
    assert launch(folder, "db", "downgrade", "base", env=alone).returncode == 0
    assert [*describe_schema(next(iter(alone.values())))] == ["alembic_version"]


@pytest.mark.parametrize(
    "command",
    [
        *("db current", "db history", "db heads", "db show", "db branches", "db stamp head"),
        *("status", "wait head", "wait database"),
    ],
)
def test_commands_that_need_no_models(command: str, tmp_path: Path, launch: "RunCommand") -> None:
    """Whatever compares nothing runs without the application."""
    folder = copy_repository("legacy", tmp_path)
    env = {"DATABASE_URL": f"sqlite:///{tmp_path}/x.db", "MIGRATE_HEAD_TIMEOUT": "0"}
    result = launch(folder, *command.split(), env=env)
    assert result.returncode == (10 if command == "wait head" else 0), result.stderr


def test_sql_is_printed_without_a_server(tmp_path: Path, launch: "RunCommand") -> None:
    """`--sql` needs the URL for its dialect alone: nothing connects, nothing is waited for."""
    folder = copy_repository("legacy", tmp_path)
    env = {"MIGRATE_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing"}
    result = launch(folder, "db", "upgrade", "--sql", env=env)
    assert read_last(result)["exit_code"] == 0
    assert "CREATE TABLE" in result.stdout


@pytest.mark.parametrize("command", [["migrate"], ["check"], ["revision", "--autogenerate"]])
def test_comparing_is_refused(command: list[str], tmp_path: Path, launch: "RunCommand") -> None:
    """Against no models every table would be dropped: 3, before anything is written."""
    folder = copy_repository("shop", tmp_path)
    before = sorted(folder.rglob("*"))
    env = {"DATABASE_URL": f"sqlite:///{tmp_path}/x.db"}
    last = read_last(launch(folder, "db", *command, env=env))
    assert last["exit_code"] == 3
    assert "no models" in last["error"]["message"]
    assert sorted(folder.rglob("*")) == before


def test_revision_without_comparing_is_written(tmp_path: Path, launch: "RunCommand") -> None:
    """An empty revision needs no models."""
    folder = copy_repository("shop", tmp_path)
    env = {"DATABASE_URL": f"sqlite:///{tmp_path}/x.db"}
    assert launch(folder, "db", "revision", "-m", "more", env=env).returncode == 0
    assert list(folder.rglob("*_more.py"))


@pytest.mark.parametrize(
    ("files", "settings", "said"),
    [
        ([], {}, ["no application", "migration repository", "database URL"]),
        (["migrations"], {}, ["no application", "database URL"]),
        ([], {"DATABASE_URL": "sqlite:///x.db"}, ["no application", "migration repository"]),
        (["migrations"], {"MIGRATE_APP": "none"}, ["no database URL"]),
        ([], {"MIGRATE_APP": "none", "DATABASE_URL": "sqlite:///x.db"}, ["migration repository"]),
        (["migrations"], {"DATABASE_URL": "nothing"}, ["malformed"]),
        (["migrations"], {"DATABASE_URL": "odd://host/x"}, ["unknown dialect"]),
        (["migrations"], {"DATABASE_URL": "mysql+aiomysql2://h/x"}, ["unknown dialect"]),
    ],
)
def test_says_what_is_missing(
    files: list[str],
    settings: dict[str, str],
    said: list[str],
    tmp_path: Path,
    launch: "RunCommand",
) -> None:
    """Without an application, a repository or a URL the run ends with 3 and names what to give."""
    if files:
        write_repository(tmp_path / "migrations")
    last = read_last(launch(tmp_path, "db", "upgrade", env=settings))
    assert last["exit_code"] == 3
    assert all(text in last["error"]["message"] for text in said), last
    assert last["hint"]


def test_a_broken_app_is_no_reason_to_do_without(tmp_path: Path, launch: "RunCommand") -> None:
    """An application that fails is 4 with the way out in the hint; never a silent fall back."""
    app = write_app(tmp_path / "app", "import not_installed_here")
    env = {"DATABASE_URL": f"sqlite:///{tmp_path}/x.db"}
    last = read_last(launch(app, "db", "upgrade", env=env))
    assert last["exit_code"] == 4
    assert "--app none" in last["hint"]
    result = launch(app, "--app", "none", "db", "upgrade", env=env)
    assert read_last(result)["applied"] == ["a1"]


@pytest.mark.parametrize("missing", ["users", "audit"])
def test_each_database_of_the_revisions_needs_a_url(
    missing: str, tmp_path: Path, launch: "RunCommand"
) -> None:
    """With the main database alone, the others would be left behind without a word."""
    folder = copy_repository("multidb", tmp_path)
    flags = [
        f"--bind-url={name}=sqlite:///{tmp_path}/{name}.db"
        for name in ("users", "audit")
        if name != missing
    ]
    env = {"DATABASE_URL": f"sqlite:///{tmp_path}/x.db"}
    last = read_last(launch(folder, *flags, "db", "upgrade", env=env))
    assert last["exit_code"] == 3
    assert f"--bind-url {missing}=" in last["hint"]
    assert not list(tmp_path.glob("*.db"))


def test_binds_in_the_variables_of_flask(tmp_path: Path, launch: "RunCommand") -> None:
    """What `from_prefixed_env` reads is the configuration, the databases included."""
    folder = copy_repository("multidb", tmp_path)
    env = {
        "FLASK_SQLALCHEMY_DATABASE_URI": f"sqlite:///{tmp_path}/x.db",
        "FLASK_SQLALCHEMY_BINDS__users": f"sqlite:///{tmp_path}/users.db",
        "FLASK_SQLALCHEMY_BINDS__audit": f'{{"url": "sqlite:///{tmp_path}/audit.db"}}',
        "MIGRATE_APP": "none",
    }
    assert read_last(launch(folder, "db", "upgrade", env=env))["exit_code"] == 0
    assert {path.name for path in tmp_path.glob("*.db")} == {"x.db", "users.db", "audit.db"}


READS = """    from flask import current_app
    if current_app.config["TENANT"] != {"name": "blue"}:
        raise ValueError(current_app.config["TENANT"])
"""
READING = REVISION.replace("def upgrade():\n", f"def upgrade():\n{READS}")


def test_configuration_comes_from_the_environment(tmp_path: Path, launch: "RunCommand") -> None:
    """Revisions that read `current_app.config` find what FLASK_* variables say, JSON included."""
    write_repository(tmp_path / "migrations", READING)
    env = {"DATABASE_URL": f"sqlite:///{tmp_path}/x.db", "FLASK_TENANT": '{"name": "blue"}'}
    assert read_last(launch(tmp_path, "db", "upgrade", env=env))["applied"] == ["a1"]
    dotenv = {"DATABASE_URL": f"sqlite:///{tmp_path}/y.db"}
    (tmp_path / ".env").write_text("FLASK_TENANT__name=blue\n")
    assert read_last(launch(tmp_path, "db", "upgrade", env=dotenv))["applied"] == ["a1"]


@pytest.mark.parametrize(
    "revision",
    [
        READING,
        "from flask import current_app\ncurrent_app.config['TENANT']\n" + REVISION,
    ],
    ids=["body", "module"],
)
def test_missing_configuration_is_named(
    revision: str, tmp_path: Path, launch: "RunCommand"
) -> None:
    """A key that no variable gives is 8, with the file, the key, and how to give it."""
    write_repository(tmp_path / "migrations", revision)
    env = {"DATABASE_URL": f"sqlite:///{tmp_path}/x.db"}
    last = read_last(launch(tmp_path, "db", "upgrade", env=env))
    assert last["exit_code"] == 8
    assert "'TENANT'" in last["error"]["message"]
    assert "a1_thing.py" in last["error"]["message"]
    assert "FLASK_TENANT" in last["hint"]


@pytest.mark.parametrize(
    "revision",
    [
        "from shop.models import Thing\n" + REVISION,
        REVISION.replace("def upgrade():\n", "def upgrade():\n    import shop.models\n"),
    ],
    ids=["module", "body"],
)
@pytest.mark.parametrize("command", ["upgrade", "history"])
def test_revision_that_imports_the_app(
    revision: str, command: str, tmp_path: Path, launch: "RunCommand"
) -> None:
    """Where a revision imports the app's code: 4, naming module, file and the ways to bring it."""
    write_repository(tmp_path / "migrations", revision)
    env = {"DATABASE_URL": f"sqlite:///{tmp_path}/x.db"}
    result = launch(tmp_path, "db", command, env=env)
    if command == "history" and revision.startswith("\n"):
        assert result.returncode == 0  # the body does not run
        return
    last = read_last(result)
    assert last["exit_code"] == 4
    assert "'shop'" in last["error"]["message"]
    assert "a1_thing.py" in last["hint"]
    assert all(way in last["hint"] for way in ("--app-dir", "--site-packages", "image"))


def test_env_py_that_imports_the_app(tmp_path: Path, launch: "RunCommand") -> None:
    """So with `env.py`."""
    env_py = write_repository(tmp_path / "migrations") / "env.py"
    env_py.write_text("import shop.models\n" + env_py.read_text())
    env = {"DATABASE_URL": f"sqlite:///{tmp_path}/x.db"}
    last = read_last(launch(tmp_path, "db", "upgrade", env=env))
    assert last["exit_code"] == 4
    assert "env.py" in last["hint"]


def test_repository_named_behind_the_subcommand(tmp_path: Path, launch: "RunCommand") -> None:
    """`-d`, `--directory` and the variable each find a repository that has another name."""
    write_repository(tmp_path / "elsewhere")
    for number, (before, behind, variable) in enumerate(
        [
            ([], ["-d", "elsewhere"], {}),
            ([], ["--directory=elsewhere"], {}),
            (["--directory", "elsewhere"], [], {}),
            ([], [], {"FLASK_DB_DIRECTORY": "elsewhere"}),
        ]
    ):
        env = {"DATABASE_URL": f"sqlite:///{tmp_path}/{number}.db", **variable}
        result = launch(tmp_path, *before, "db", "upgrade", *behind, env=env)
        assert read_last(result)["exit_code"] == 0


def test_relative_sqlite_file_is_where_the_app_has_it(tmp_path: Path, launch: "RunCommand") -> None:
    """A relative file lies in `instance`, as with Flask-SQLAlchemy in the application."""
    app = write_app(tmp_path / "app")
    env = {"DATABASE_URL": "sqlite:///main.db"}
    assert read_last(launch(app, "db", "upgrade", env=env))["applied"] == ["a1"]
    last = read_last(launch(app, "--app=none", "db", "upgrade", env=env))
    assert (last["exit_code"], last["applied"]) == (0, [])
    assert [path.relative_to(app) for path in app.rglob("main.db")] == [Path("instance/main.db")]


@pytest.mark.endurance
@pytest.mark.parametrize("version", ["3.1.0", "4.0.7", "4.1.0"])
def test_with_upstream_flask_migrate(version: str, tmp_path: Path, launch: "RunCommand") -> None:
    """The mode uses only what upstream Flask-Migrate offers too."""
    packages = install_packages(f"upstream-{version}", f"flask-migrate=={version}")
    folder = copy_repository("shop", tmp_path)
    env = {
        "DATABASE_URL": f"sqlite:///{tmp_path}/x.db",
        "MIGRATE_SITE_PACKAGES": str(packages),
    }
    for command, code in {"upgrade": 0, "current": 0, "migrate": 3, "downgrade": 0}.items():
        assert launch(folder, "db", command, env=env).returncode == code


@pytest.mark.parametrize("command", [("db", "upgrade"), ("wait", "head"), ("db", "stamp", "head")])
def test_version_table_of_the_application(
    command: tuple[str, ...],
    create_database_url: Callable[[], str],
    copy_app: Callable[[str], Path],
    tmp_path: Path,
    launch: "RunCommand",
) -> None:
    """A database that the application has migrated is not empty because its table is elsewhere."""
    url = create_database_url()
    app = copy_app("shop")
    source, plain = (app / "app.py").read_text(), "migrate = Migrate()"
    assert plain in source
    own = "migrate = Migrate(version_table='shop_version')"
    (app / "app.py").write_text(source.replace(plain, own))
    assert launch(app, "db", "upgrade", env={"DATABASE_URL": url}).returncode == 0
    before = describe_schema(url)

    folder = copy_repository("shop", tmp_path / "alone")
    env = {"MIGRATE_DATABASE_URL": url, "MIGRATE_HEAD_TIMEOUT": "0"}
    refused = launch(folder, *command, env=env)
    named = launch(folder, "--version-table", "shop_version", *command, env=env)

    assert refused.returncode == read_last(refused)["exit_code"] == 3
    assert "shop_version" in read_last(refused)["error"]["message"]
    assert "--version-table shop_version" in read_last(refused)["hint"]
    assert named.returncode == 0, named.stderr
    assert describe_schema(url) == before
    if command == ("db", "upgrade"):
        assert read_last(named)["applied"] == []


def test_version_table_of_somebody_else(
    create_database_url: Callable[[], str], tmp_path: Path, launch: "RunCommand"
) -> None:
    """Whoever shares a database with another application says so once, and is believed."""
    url = create_database_url()
    with create_engine(url, poolclass=NullPool).begin() as connection:
        connection.exec_driver_sql("CREATE TABLE theirs (version_num VARCHAR(32))")
    folder = copy_repository("shop", tmp_path / "alone")
    command = ("--version-table", "alembic_version", "db", "upgrade")
    result = launch(folder, *command, env={"MIGRATE_DATABASE_URL": url})
    assert result.returncode == 0, result.stderr
    assert launch(folder, "db", "upgrade", env={"MIGRATE_DATABASE_URL": url}).returncode == 0


def test_version_table_in_a_schema(
    postgres15: Postgres, tmp_path: Path, launch: "RunCommand"
) -> None:
    """The schema stands before the name, as `version_table_schema` does beside it."""
    database = postgres15.create_database()
    with create_engine(database.url(), poolclass=NullPool).begin() as connection:
        connection.exec_driver_sql("CREATE SCHEMA own")
    folder = copy_repository("shop", tmp_path / "alone")
    env = {"MIGRATE_DATABASE_URL": database.url(), "MIGRATE_VERSION_TABLE": "own.versions"}
    assert launch(folder, "db", "upgrade", env=env).returncode == 0
    with create_engine(database.url(), poolclass=NullPool).connect() as connection:
        assert len(connection.exec_driver_sql("SELECT * FROM own.versions").all()) == 1
    postgres15.drop_database(database.name)


def test_version_table_with_the_application(
    copy_app: Callable[[str], Path], launch: "RunCommand"
) -> None:
    """With the application the setting would be a second, contrary word."""
    result = launch(copy_app("shop"), "--version-table", "x", "db", "upgrade")
    assert result.returncode == 3
    assert "which says where" in read_last(result)["error"]["message"]
