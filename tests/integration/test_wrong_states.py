"""Repositories, version tables and environments that are wrong: each has its code and its name."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from app_code import REVISION, write_app
from conftest import RunCommand
from sidecar_runs import Result

SECOND = REVISION.replace('"a1"', '"b2"').replace("= None", '= "a1"').replace('"thing"', '"other"')
MAKES = 'op.create_table("other", sa.Column("id", sa.Integer, primary_key=True))'
READERS = (("db", "upgrade"), ("status",), ("wait", "head"))


def write(folder: Path, second: str = SECOND, first: str = REVISION, body: str = "") -> Path:
    """Write an application with two revisions."""
    app = write_app(folder / "app", body, revision=first)
    (app / "migrations/versions/b2_other.py").write_text(second)
    return app


def run(app: Path, launch: RunCommand, *command: str, **variables: str) -> Result:
    """Run a command, by default an upgrade, over a file of its own."""
    env = {"DATABASE_URL": f"sqlite:///{app.parent}/x.db", "MIGRATE_HEAD_TIMEOUT": "2s"}
    result = launch(app, *(command or ("db", "upgrade")), env={**env, **variables})
    assert isinstance(result, Result)
    return result


def check(result: Result, code: int, kind: str, *said: str) -> None:
    """Want the code, the error's type, and words of its message or hint."""
    last = result.last
    assert result.returncode == last["exit_code"] == code, last
    assert last["error"]["type"] == kind, last
    text = f"{last['error']['message']} {last['hint']}"
    assert [word for word in said if word not in text] == [], text


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (f'{SECOND}\ndepends_on = "gone"\n', ["depends on 'gone'"]),
        (REVISION, ["a1", "versions/a1_thing.py", "versions/b2_other.py"]),
        (SECOND.replace('= "a1"', '= "zz"'), ["zz", "versions/b2_other.py"]),
        (SECOND.replace('"b2"', '"head"'), ["'head'", "b2_other.py"]),
        (SECOND.replace('"b2"', '"heads"'), ["'heads'", "b2_other.py"]),
    ],
    ids=["depends on none", "twice", "follows none", "head", "heads"],
)
def test_history_that_does_not_fit(
    second: str, said: list[str], tmp_path: Path, launch: RunCommand
) -> None:
    """What does not fit together is 9, by name and file."""
    check(run(write(tmp_path, second), launch), 9, "HistoryError", *said)


@pytest.mark.parametrize("command", [*READERS, ("db", "downgrade", "-1")], ids=" ".join)
@pytest.mark.parametrize(
    ("column", "rows", "said"),
    [
        ("version_num VARCHAR(32)", ["NULL"], "holds None"),
        ("version_num INTEGER", ["17"], "holds 17"),
        ("version_num VARCHAR(32)", ["'a1'", "'b2'"], "comes before it"),
        ("revision VARCHAR(32)", [], "another form"),
    ],
    ids=["nothing", "number", "two of one line", "other column"],
)
def test_version_table_of_another_form(
    command: tuple[str, ...],
    column: str,
    rows: list[str],
    said: str,
    tmp_path: Path,
    launch: RunCommand,
) -> None:
    """A version table that holds what no migration writes is 9, and nothing runs over it."""
    app = write(tmp_path)
    with closing(sqlite3.connect(tmp_path / "x.db")) as connection:
        connection.execute(f"CREATE TABLE alembic_version ({column})")
        for row in rows:
            connection.execute(f"INSERT INTO alembic_version VALUES ({row})")
        connection.commit()
        before = [*connection.iterdump()]
        check(run(app, launch, *command), 9, "HistoryError", said)
        assert [*connection.iterdump()] == before


def test_stamp_purges_what_is_wrong(tmp_path: Path, launch: RunCommand) -> None:
    """The way out that the hints name works."""
    app = write(tmp_path)
    with closing(sqlite3.connect(tmp_path / "x.db")) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        connection.execute("INSERT INTO alembic_version VALUES ('a1'), ('b2'), (NULL)")
        connection.commit()
        assert run(app, launch, "db", "stamp", "--purge", "b2").returncode == 0
        assert [*connection.execute("SELECT * FROM alembic_version")] == [("b2",)]


def test_stamp_tells_what_it_purges(tmp_path: Path, launch: RunCommand) -> None:
    """Where the databases were is what they held before the table was emptied."""
    app = write(tmp_path)
    assert run(app, launch).returncode == 0
    result = run(app, launch, "db", "stamp", "--purge", "a1")
    assert result.returncode == 0
    assert result.last["from"] == {"default": ["b2"]}
    assert result.last["to"] == {"default": ["a1"]}


ENVIRONMENTS = {
    "empty": "",
    "guarded": "from alembic import context\nif False:\n    context.run_migrations()\n",
    "configured": "from alembic import context\nfrom flask import current_app\n",
}


@pytest.mark.parametrize("command", [*READERS, ("db", "stamp", "head")], ids=" ".join)
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_environment_that_runs_nothing(
    name: str, command: tuple[str, ...], tmp_path: Path, launch: RunCommand
) -> None:
    """An env.py that neither migrates nor asks a database is no success, and no open gate."""
    app = write(tmp_path)
    (app / "migrations/env.py").write_text(ENVIRONMENTS[name])
    check(run(app, launch, *command), 8, "MigrationError", "env.py ran no migrations")


@pytest.mark.parametrize("command", ["upgrade", "downgrade", "stamp", "show"])
def test_target_that_is_empty(command: str, tmp_path: Path, launch: RunCommand) -> None:
    """An empty target, as an unset variable makes one, is an error of usage."""
    check(run(write(tmp_path), launch, "db", command, ""), 2, "UsageError", "empty revision")


@pytest.mark.parametrize(
    "statement",
    [
        "import asyncio; raise asyncio.CancelledError",
        'raise type("Odd", (BaseException,), {})("x")',
        'from alembic.util import CommandError; raise CommandError("of my own")',
        "raise GeneratorExit",
    ],
)
def test_exception_of_any_kind(statement: str, tmp_path: Path, launch: RunCommand) -> None:
    """Whatever a revision raises, it is the revision that failed, with its line."""
    app = write(tmp_path, SECOND.replace(MAKES, statement))
    result = run(app, launch)
    check(result, 8, "MigrationError")
    assert result.last["revision"] == "b2"
    assert result.last["where"].startswith("migrations/versions/b2_other.py:")


@pytest.mark.parametrize("url", ["postgresql://u:p@h1:1,h2:2/db", "postgres://u:p@h/db"])
def test_url_that_is_no_url(url: str, tmp_path: Path, launch: RunCommand) -> None:
    """A URL of the application's that SQLAlchemy cannot read is a matter of configuration."""
    check(run(write(tmp_path), launch, DATABASE_URL=url), 3, "ConfigurationError", "URL")


def test_package_of_another_version(tmp_path: Path, launch: RunCommand) -> None:
    """A package that is there but lacks a name is told with its version and place."""
    app = write(tmp_path, body="from flask_sqlalchemy import gone")
    said = ("Flask-SQLAlchemy 3", "flask_sqlalchemy/__init__.py", "--site-packages")
    check(run(app, launch), 4, "AppError", *said)


@pytest.mark.parametrize("text", ["", "no ini", "[loggers]\nkeys = root\n"])
def test_configuration_file_that_is_broken(text: str, tmp_path: Path, launch: RunCommand) -> None:
    """An alembic.ini that is empty, or no such file, is a matter of configuration."""
    app = write(tmp_path)
    (app / "migrations/alembic.ini").write_text(text)
    check(run(app, launch), 3, "ConfigurationError", "alembic.ini")


def test_bind_that_is_not_there(tmp_path: Path, launch: RunCommand) -> None:
    """A URL for a bind that the application does not have is told, and not waited for."""
    # Of the documentation's network: nobody answers there (RFC 5737).
    given = ("--bind-url", "gone=postgresql://u:p@192.0.2.1/db", "--wait-timeout", "60s")
    check(run(write(tmp_path), launch, *given, "db", "upgrade"), 3, "ConfigurationError", "gone")


def test_note_is_told(tmp_path: Path, launch: RunCommand) -> None:
    """What an exception has in its notes is part of the hint."""
    raised = 'error = ValueError("x"); error.add_note("name the constraint"); raise error'
    app = write(tmp_path, SECOND.replace(MAKES, raised))
    check(run(app, launch), 8, "MigrationError", "name the constraint")


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
@pytest.mark.parametrize("command", [("db", "upgrade"), ("status",)], ids=" ".join)
def test_lock_file_that_is_none(
    kind: str, command: tuple[str, ...], tmp_path: Path, launch: RunCommand
) -> None:
    """What stands where the lock file belongs is neither emptied nor waited for."""
    app, file, other = write(tmp_path), tmp_path / "x.db.lock", tmp_path / "other"
    other.write_text("somebody's")
    with closing(sqlite3.connect(tmp_path / "x.db")):
        pass
    make = {"link": lambda: file.symlink_to(other), "pipe": lambda: os.mkfifo(file)}
    make.get(kind, file.mkdir)()
    result = run(app, launch, *command)
    assert result.returncode in ({0, 6} if command == ("status",) else {6}), result.last
    if command != ("status",):
        check(result, 6, "RefusedError", "x.db.lock", "no link, no pipe")
    assert other.read_text() == "somebody's"


LEASES = "flask_migrate_sidecar_lock"


@pytest.mark.parametrize("times", [("NULL", "NULL"), (10**18, 9 * 10**18), (-(10**18), 10**18)])
def test_lease_with_odd_times(
    times: tuple[object, object], tmp_path: Path, launch: RunCommand
) -> None:
    """A lease that never ends is somebody's, and told with what stands there."""
    app = write(tmp_path)
    lease = {"MIGRATE_LOCK": "table", "MIGRATE_LOCK_TIMEOUT": "0"}
    assert run(app, launch, "db", "upgrade", "a1", **lease).returncode == 0
    with closing(sqlite3.connect(tmp_path / "x.db")) as connection:
        statement = f"UPDATE {LEASES} SET token = 't', pid = 7, acquired_ms = ?, expires_ms = ?"
        connection.execute(statement, [None if time == "NULL" else time for time in times])
        connection.commit()
    check(run(app, launch, **lease), 7, "LockedError", "pid 7")
    assert run(app, launch, "status", **lease).returncode == 0


def test_table_in_the_place_of_the_leases(tmp_path: Path, launch: RunCommand) -> None:
    """A table of another form under the lease table's name is told as that."""
    app = write(tmp_path)
    with closing(sqlite3.connect(tmp_path / "x.db")) as connection:
        connection.execute(f"CREATE TABLE {LEASES} (id integer)")
    result = run(app, launch, MIGRATE_LOCK="table")
    check(result, 3, "ConfigurationError", LEASES, "another form")
