"""A subcommand: what it does to databases, decided from its parsed parameters."""

from collections.abc import Iterator

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy

from flask_migrate import Migrate
from flask_migrate_sidecar.application.loading import Application
from flask_migrate_sidecar.application.subcommand import Subcommand, own_options, parse_subcommand
from flask_migrate_sidecar.errors import UsageError


@pytest.fixture
def application() -> Iterator[Application]:
    """Return an application with a command of its own in the group that the process shares."""
    app = Flask("app")
    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
    Migrate(app, SQLAlchemy(app))
    group = app.cli.commands["db"]
    group.command("clean")(lambda: None)  # type: ignore[attr-defined]
    yield Application(app, app.extensions["migrate"], group, "mounted")  # type: ignore[arg-type]
    del group.commands["clean"]  # type: ignore[attr-defined]


def parse(application: Application, line: str, directory: str | None = None) -> Subcommand:
    """Parse what stands behind `db`."""
    return parse_subcommand(application, line.split(), directory=directory)


@pytest.mark.parametrize(
    ("line", "reads", "writes"),
    [
        ("upgrade", True, True),
        ("downgrade", True, True),
        ("stamp head", True, True),
        ("clean", True, True),
        ("upgrade --sql", False, False),
        ("stamp --sql head", False, False),
        ("current", True, False),
        ("check", True, False),
        ("migrate", True, False),
        ("revision --autogenerate", True, False),
        ("revision", False, False),
        ("show current", True, False),
        ("show head", False, False),
        ("edit current", True, False),
        ("history", False, False),
        ("history -i", True, False),
        ("history -r current:head", True, False),
        ("history -r base:current", True, False),
        ("history -r base:head", False, False),
        ("heads", False, False),
        ("branches", False, False),
        ("merge heads", False, False),
        ("init", False, False),
        ("list-templates", False, False),
    ],
)
def test_what_waits_and_locks(
    application: Application, line: str, reads: bool, writes: bool
) -> None:
    """What reads a database is waited for, what writes to it is locked too, all else is neither."""
    subcommand = parse(application, line)
    found = (subcommand.reads(revision_environment=False), subcommand.writes)
    assert found == (reads, writes)


@pytest.mark.parametrize("line", ["revision", "merge heads", "history"])
def test_revision_environment_reads(application: Application, line: str) -> None:
    """With `revision_environment` these commands run env.py, and so read."""
    assert parse(application, line).reads(revision_environment=True)


def test_variables_count(application: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """A parameter from a variable counts like one from the command line."""
    monkeypatch.setenv("FLASK_DB_UPGRADE_SQL", "1")
    assert parse(application, "upgrade").is_offline


@pytest.mark.parametrize(
    ("line", "directory"),
    [
        ("heads", "settings"),
        ("-d group heads", "group"),
        ("heads -d own", "own"),
        ("-d group heads -d own", "own"),
    ],
)
def test_directory_of_the_nearest_wins(application: Application, line: str, directory: str) -> None:
    """The subcommand's `-d` goes before the group's, and that before the sidecar's setting."""
    assert parse(application, line, "settings").directory == directory


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "db: a subcommand is needed"),
        ("frob", "No such command 'frob'"),
        ("upgrade --frob", "No such option.*--frob"),
        ("upgrade a b", "unexpected extra argument"),
    ],
)
def test_wrong_usage(application: Application, line: str, message: str) -> None:
    """What click refuses is a usage error of ours, with the help to look at."""
    with pytest.raises(UsageError, match=message) as caught:
        parse(application, line)
    assert "--help" in str(caught.value.hint)


def test_stdout_of_own_commands(application: Application) -> None:
    """The app's own commands and `edit` have stdout for themselves."""
    lines = ("clean", "edit head", "upgrade", "heads")
    assert [parse(application, line).keeps_stdout for line in lines] == [True, True, False, False]


def test_options_that_both_have(application: Application) -> None:
    """The options of a subcommand that carry a name of ours are found before it is parsed."""
    assert own_options(application.group, ["heads"]) == {"--directory"}
    assert own_options(application.group, ["clean"]) == set()
    assert own_options(application.group, ["frob"]) == {"--directory"}
