"""Errors that say what to do next; those in the table of faults are tested there."""

from pathlib import Path
from typing import Any

import pytest
from alembic.util import CommandError
from flask import Flask

import flask_migrate
from flask_migrate import Migrate
from library import SINGLE, flask, make_project, query, write_app


@pytest.mark.parametrize("command", ["upgrade", "revision", "migrate", "downgrade"])
def test_several_heads(tmp_path: Path, command: str) -> None:
    """Two heads are named, and `merge` is suggested."""
    project = make_project(tmp_path)
    with project.app.app_context():
        flask_migrate.init()
        for name in ("aa", "bb"):
            flask_migrate.revision(rev_id=name, head="base")
        options = {"revision": "head"} if command == "downgrade" else {}
        with pytest.raises(CommandError, match=r"The heads are aa, bb; .*'merge heads' joins them"):
            getattr(flask_migrate, command)(**options)


def test_several_heads_on_the_command_line(tmp_path: Path) -> None:
    """The command line shows the same, in one line."""
    *_, result = flask(
        write_app(tmp_path),
        "db init",
        "db revision --head base --rev-id aa",
        "db revision --head base --rev-id bb",
        "db upgrade",
        fail=True,
    )
    assert "The heads are aa, bb" in result.stderr
    assert "Traceback" not in result.stderr


UNNAMED = """
def upgrade():
    with op.batch_alter_table("person") as batch:
        batch.create_unique_constraint(None, ["id"])


def downgrade():
    pass
"""


def test_unnamed_constraint(tmp_path: Path) -> None:
    """A constraint without a name in SQLite's batch mode: a note says what to do."""
    write_app(tmp_path)
    flask(tmp_path, "db init", "db migrate", "db upgrade", "db revision --rev-id bb")
    (revision,) = (tmp_path / "migrations/versions").glob("bb_*")
    revision.write_text(revision.read_text().split("def upgrade")[0] + UNNAMED)
    (result,) = flask(tmp_path, "db upgrade", fail=True)
    assert "ValueError: Constraint must have a name" in result.stderr
    assert "naming_convention" in result.stderr.splitlines()[-1]


NAMED = """
from sqlalchemy import MetaData
convention = {"uq": "uq_%(table_name)s_%(column_0_name)s"}
db = SQLAlchemy(app, metadata=MetaData(naming_convention=convention))
"""


def test_naming_convention(tmp_path: Path) -> None:
    """With a naming convention, autogenerate names the constraint and batch mode finds it."""
    source = SINGLE.replace("db = SQLAlchemy(app)\n", NAMED)
    write_app(tmp_path, source)
    flask(tmp_path, "db init", "db migrate", "db upgrade")
    write_app(tmp_path, source.replace("db.String(50)", "db.String(50), unique=True"))
    flask(tmp_path, "db migrate --rev-id bb", "db upgrade", "db check", "db downgrade")
    (revision,) = (tmp_path / "migrations/versions").glob("bb_*")
    assert "uq_person_name" in revision.read_text()


def make_app(**options: Any) -> Flask:
    """Make an application whose Migrate was given no database object."""
    app = Flask("project")
    Migrate().init_app(app, **options)
    return app


def test_migrate_without_database_object(tmp_path: Path) -> None:
    """`init_app()` without `db`: the command that needs it says what is missing."""
    with make_app(directory=tmp_path / "migrations").app_context():
        flask_migrate.init()
        flask_migrate.revision(rev_id="aa")
        with pytest.raises(CommandError, match="was not given the application's database object"):
            flask_migrate.upgrade()


def test_other_attribute_errors_come_through(tmp_path: Path) -> None:
    """An AttributeError of the user's own is not explained away."""
    with make_app(directory=tmp_path / "migrations").app_context():
        flask_migrate.init()
        flask_migrate.revision(rev_id="aa")
        (tmp_path / "migrations/env.py").write_text("[].nothing")
        with pytest.raises(AttributeError, match="nothing"):
            flask_migrate.upgrade()


def test_no_models_and_no_tables(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """On an empty database too, a comparison without models says that nothing was imported."""
    project = make_project(tmp_path, models=lambda _db: None)
    with project.app.app_context(), caplog.at_level("WARNING", "flask_migrate"):
        flask_migrate.init()
        flask_migrate.migrate()
        assert "No models were imported, so there is nothing to compare" in caplog.text
        assert project.revisions == []


def test_no_models_in_one_of_several(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A database of several that is empty and has no models is no reason for a warning."""
    project = make_project(tmp_path, "users", models=person)
    with project.app.app_context(), caplog.at_level("WARNING", "flask_migrate"):
        flask_migrate.init(multidb=True)
        flask_migrate.migrate()
        flask_migrate.upgrade()
        assert "No models" not in caplog.text
        query(tmp_path / "users.db", "CREATE TABLE account (id INTEGER NOT NULL)")
        with pytest.raises(CommandError):
            flask_migrate.check()
        assert "No models were imported, so every table" in caplog.text
        assert "(account)" in caplog.text


def person(db: Any) -> None:
    """Declare a table in the main database."""
    db.Table("person", db.Column("id", db.Integer, primary_key=True))


def test_unknown_template(tmp_path: Path) -> None:
    """A template that is not there ends with one line."""
    for name in ("nothing", "./nothing"):
        (result,) = flask(write_app(tmp_path), f"db init -t {name}", fail=True)
        assert "ERROR [flask_migrate] Error: No such template" in result.stderr


def test_not_empty(tmp_path: Path) -> None:
    """`init` on a directory that is taken ends with one line and changes nothing."""
    write_app(tmp_path)
    flask(tmp_path, "db init", "db revision --rev-id aa")
    (result,) = flask(tmp_path, "db init", fail=True)
    assert "already exists and is not empty" in result.stderr
    assert len([*(tmp_path / "migrations/versions").glob("*.py")]) == 1
