"""What looks at nothing is no success: no revisions, no secret, no database of the repository's."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from app_code import drop_right_to_pass, write_app
from conftest import clean_environment
from servers import USER, Postgres, render_url
from sidecar_runs import Launcher, events

# A gate that does not refuse waits until then.
SOON = {"MIGRATE_HEAD_TIMEOUT": "2"}
READING = [
    *("db upgrade", "wait head", "status", "db current", "db check", "db stamp head"),
    *("db heads", "db history", "db downgrade base", "db ensure-version"),
]


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """Return an application with one revision and a bind that its repository does not know."""
    folder = write_app(tmp_path / "app")
    text = (folder / "app.py").read_text()
    config = 'app.config["SQLALCHEMY_BINDS"] = {"users": "sqlite:///users.db"}\n'
    (folder / "app.py").write_text(text.replace("db = SQL", f"{config}db = SQL"))
    return folder


def remove(versions: Path) -> None:
    """Leave no folder, as an image does from which it was ignored."""
    shutil.rmtree(versions)


def replace_by_file(versions: Path) -> None:
    """Leave a file, as a volume does that was mounted with a `subPath` that is one."""
    shutil.rmtree(versions)
    versions.write_text("")


def list_missing(versions: Path) -> None:
    """List a folder beside it that is not there."""
    (versions.parent / "alembic.ini").write_text(
        "[alembic]\nversion_locations = %(here)s/versions:%(here)s/plugin\n"
        "version_path_separator = :\npath_separator = :\n"
    )


@pytest.mark.parametrize("command", READING)
@pytest.mark.parametrize("damage", [remove, replace_by_file, list_missing])
def test_folder_of_revisions_that_is_not_there(
    damage: Callable[[Path], None], command: str, app: Path, launch: Launcher
) -> None:
    """Alembic passes over a folder that it cannot list; every command that reads it must not."""
    assert launch(app, "db", "upgrade").returncode == 0
    damage(app / "migrations" / "versions")
    result = launch(app, *command.split(), env=SOON)
    assert result.returncode == result.last["exit_code"] == 3
    assert "the revisions in " in result.last["error"]["message"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("closed", ["versions", ".", "env.py"])
@pytest.mark.parametrize("command", ["db upgrade", "wait head", "status", "db migrate"])
def test_part_of_the_repository_that_this_user_may_not_read(
    command: str, closed: str, app: Path
) -> None:
    """A folder of another user's is no empty history, and a file of theirs no faulty revision."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        copy = Path(shutil.copytree(app, Path(name) / "app"))
        copy.chmod(0o777)
        shutil.rmtree(copy / "migrations" / "__pycache__", ignore_errors=True)
        (copy / "migrations" / closed).chmod(0o700)
        os.chown(copy / "migrations" / closed, 65534, 65534)
        done = subprocess.run(
            [sys.executable, "-m", "flask_migrate_sidecar", *command.split()],
            cwd=copy,
            env={**clean_environment(), **SOON},
            preexec_fn=drop_right_to_pass,
            check=False,
            capture_output=True,
            text=True,
        )
    last = json.loads(done.stderr.splitlines()[-1])
    assert done.returncode == last["exit_code"] == 3
    assert "Permission denied" in last["error"]["message"]


def unlink(repository: Path) -> None:
    """Leave no `env.py`."""
    (repository / "env.py").unlink()


def lead_nowhere(repository: Path) -> None:
    """Leave a revision that is a link to nowhere."""
    for file in (repository / "versions").glob("*.py"):
        file.unlink()
        file.symlink_to("/nowhere/revision.py")


@pytest.mark.parametrize(("damage", "code"), [(unlink, 3), (lead_nowhere, 9)])
@pytest.mark.parametrize("command", ["db upgrade", "wait head", "status"])
def test_file_of_the_repository_that_is_not_there(
    command: str, damage: Callable[[Path], None], code: int, app: Path, launch: Launcher
) -> None:
    """A file that is missing is told as that, and not as a module that could not be imported."""
    damage(app / "migrations")
    result = launch(app, *command.split(), env=SOON)
    assert result.returncode == result.last["exit_code"] == code
    assert "there is no file" in result.last["error"]["message"]


def test_folder_that_holds_itself(app: Path, launch: Launcher) -> None:
    """A link among the revisions that leads back is not followed, as Alembic does not."""
    (app / "migrations" / "versions" / "loop").symlink_to(".")
    ini = app / "migrations" / "alembic.ini"
    ini.write_text(
        ini.read_text().replace("[alembic]", "[alembic]\nrecursive_version_locations=true")
    )
    assert launch(app, "db", "upgrade").returncode == 0


def test_no_revision_yet(app: Path, launch: Launcher) -> None:
    """A repository without a revision is upgraded with a warning; a gate does not open on it."""
    for file in (app / "migrations" / "versions").glob("*.py"):
        file.unlink()
    upgrade = launch(app, "db", "upgrade")
    assert upgrade.returncode == 0
    assert events(upgrade.log, "history.empty")
    gate = launch(app, "wait", "head", env=SOON)
    assert gate.returncode == 3
    assert "there is no revision" in gate.last["error"]["message"]
    status = launch(app, "status")
    assert json.loads(status.stdout)["databases"]["default"]["state"] == "empty"


def test_first_revision_makes_its_folder(app: Path, launch: Launcher) -> None:
    """Git keeps no empty folder: the first revision of a fresh clone is written all the same."""
    shutil.rmtree(app / "migrations" / "versions")
    assert launch(app, "db", "revision", "-m", "first").returncode == 0
    assert len(list((app / "migrations" / "versions").glob("*.py"))) == 1


@pytest.mark.parametrize(
    "words",
    [
        ("db", "upgrade", "--bind", "users"),
        ("db", "stamp", "head", "--bind", "users"),
        ("--bind-url", "users=sqlite:///other.db", "db", "upgrade"),
        ("--bind-url", "users=sqlite:///other.db", "wait", "head"),
        ("--bind-url", "users=sqlite:///other.db", "db", "current"),
        ("--bind-url", "users=sqlite:///other.db", "db", "upgrade", "--sql"),
    ],
)
def test_database_that_the_repository_does_not_migrate(
    words: tuple[str, ...], app: Path, launch: Launcher
) -> None:
    """A bind that is asked for by name and that `env.py` does not come to is no success."""
    result = launch(app, *words, env=SOON)
    assert result.returncode == result.last["exit_code"] == 3
    assert "does not migrate the database 'users'" in result.last["error"]["message"]
    assert not tables_of(app)


def test_database_that_nobody_asked_for(app: Path, launch: Launcher) -> None:
    """A bind that is not the repository's is warned of once, and has a state of its own."""
    result = launch(app, "db", "upgrade")
    assert result.returncode == 0
    (warning,) = events(result.log, "database.unmanaged")
    assert warning["databases"] == ["users"]
    # Nor is it locked.
    assert [line["database"] for line in events(result.log, "lock.acquired")] == ["default"]
    states: dict[str, Any] = json.loads(launch(app, "status").stdout)["databases"]
    assert {name: state["state"] for name, state in states.items()} == {
        "default": "at_head",
        "users": "unmanaged",
    }


def tables_of(app: Path) -> set[str]:
    """Give the tables of the main database."""
    file = app / "instance" / "main.db"
    if not file.exists():
        return set()
    with closing(sqlite3.connect(file)) as connection:
        found = connection.execute("SELECT name FROM sqlite_master").fetchall()
    return {name for (name,) in found} - {"alembic_version"}


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("command", "named"),
    [
        (("upgrade",), "default and users and audit"),
        (("stamp", "head"), "default and users and audit"),
        # One after the other is no better.
        (("upgrade", "--bind", "users"), "default and users"),
        (("upgrade", "--bind", "default", "--bind", "audit"), "default and users"),
        (("stamp", "--bind", "audit", "head"), "default and audit"),
    ],
    ids=["upgrade", "stamp", "one", "two", "stamp one"],
)
def test_databases_that_are_one(
    command: tuple[str, ...],
    named: str,
    copy_app: Callable[[str], Path],
    postgres15: Postgres,
    launch: Launcher,
) -> None:
    """Two names of one database share a version table: the second's tables would never be made."""
    database = postgres15.create_database()
    variables = ("DATABASE_URL", "USERS_DATABASE_URL", "AUDIT_DATABASE_URL")
    env = dict.fromkeys(variables, database.url())
    result = launch(copy_app("multidb"), "db", *command, env=env)
    assert result.returncode == result.last["exit_code"] == 3
    assert f"{named} are one" in result.last["error"]["message"]
    postgres15.drop_database(database.name)


def test_bind_beside_one_that_nobody_asked_for(
    copy_app: Callable[[str], Path], postgres15: Postgres, launch: Launcher
) -> None:
    """What `--bind` leaves out need not let anybody in, wherever it is."""
    database = postgres15.create_database()
    wrong = make_url(database.url()).set(username="nobody", password="wrong")
    env = {
        "DATABASE_URL": render_url(wrong),
        "USERS_DATABASE_URL": database.url(),
        "AUDIT_DATABASE_URL": render_url(wrong),
    }
    result = launch(copy_app("multidb"), "db", "upgrade", "--bind", "users", env=env)
    assert result.returncode == 0, result.last
    postgres15.drop_database(database.name)


def test_binds_that_differ_by_their_schema(
    copy_app: Callable[[str], Path], postgres15: Postgres, launch: Launcher
) -> None:
    """Binds of one database whose search path is another have a version table each."""
    database = postgres15.create_database()
    for schema in ("users", "audit"):
        postgres15.execute(f"CREATE SCHEMA {schema} AUTHORIZATION {USER}", database=database.name)
    env = {
        "DATABASE_URL": database.url(),
        "USERS_DATABASE_URL": f"{database.url()}?options=-csearch_path%3Dusers",
        "AUDIT_DATABASE_URL": f"{database.url()}?options=-csearch_path%3Daudit",
    }
    app = copy_app("multidb")
    result = launch(app, "db", "upgrade", "--bind", "users", env=env)
    assert result.returncode == 0, result.stderr
    assert [step.split(":")[0] for step in result.last["to"]] == ["users"]
    result = launch(app, "db", "upgrade", env=env)
    assert result.returncode == 0, result.stderr
    postgres15.drop_database(database.name)
