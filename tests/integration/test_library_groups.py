"""One Migrate for several applications, and several Migrate objects in one application."""

import subprocess
import sys
from pathlib import Path

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import NullPool

import flask_migrate
from conftest import clean_environment
from flask_migrate import Migrate
from library import HEAD, flask, query, tables_of, write_app


def make_app(folder: Path, name: str) -> tuple[Flask, SQLAlchemy]:
    """Make an application with a database and one table, both called like it."""
    app = Flask(name)
    app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{folder}/{name}.db"
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"poolclass": NullPool}
    db = SQLAlchemy(app)
    db.Table(f"of_{name}", db.Column("id", db.Integer, primary_key=True))
    return app, db


def migrate_fully(app: Flask) -> None:
    """Make a repository with a revision, and run it."""
    with app.app_context():
        flask_migrate.init()
        flask_migrate.migrate()
        flask_migrate.upgrade()


def test_one_migrate_for_two_applications(tmp_path: Path) -> None:
    """What `init_app` is given is for that application: directory, database and keywords."""
    migrate = Migrate(include_schemas=False)
    (a, db_a), (b, db_b) = make_app(tmp_path, "a"), make_app(tmp_path, "b")
    migrate.init_app(a, db_a, directory=tmp_path / "of_a", version_table="versions")
    migrate.init_app(b, db_b, directory=tmp_path / "of_b", compare_type=False)
    apps = {"a": a, "b": b}
    for app in apps.values():
        migrate_fully(app)
    arguments = [app.extensions["migrate"].configure_args for app in apps.values()]
    common = {"include_schemas": False, "render_as_batch": True}
    assert arguments == [
        {**common, "compare_type": True, "version_table": "versions"},
        {**common, "compare_type": False},
    ]
    assert tables_of(tmp_path / "a.db") == {"of_a", "versions"}
    assert tables_of(tmp_path / "b.db") == {"of_b"}
    assert [len([*(tmp_path / f"of_{name}/versions").glob("*.py")]) for name in apps] == [1, 1]


def test_directory_that_is_assigned(tmp_path: Path) -> None:
    """`migrate.directory` is the current application's, and may be assigned at any time."""
    migrate = Migrate(directory="one")
    (a, db_a), (b, db_b), (c, db_c) = (make_app(tmp_path, name) for name in "abc")
    migrate.directory = "two"
    migrate.init_app(a, db_a)
    migrate.init_app(b, db_b, directory="three")
    assert migrate.directory == "three"
    with a.app_context():
        assert migrate.directory == "two"
        migrate.directory = "four"
        assert migrate.get_config().get_main_option("script_location") == "four"
    assert b.extensions["migrate"].directory == "three"
    migrate.directory = "five"
    migrate.init_app(c, db_c)
    for app in (a, b, c):
        with app.app_context():
            assert migrate.get_config().get_main_option("script_location") == "five"


TWO = f"""{HEAD}
from sqlalchemy import Column, Integer, MetaData, Table

db = SQLAlchemy(app)
one, two = MetaData(), MetaData()
Table("first", one, Column("id", Integer, primary_key=True))
Table("second", two, Column("id", Integer, primary_key=True))


def only(name):
    return lambda found, type_, parents: type_ != "table" or found not in ("first", "second") or (
        found == name
    )


Migrate(app, db, "of_one", target_metadata=one, include_name=only("first"))
options = {{"version_table": "v2", "include_name": only("second")}}
Migrate(app, db, "of_two", "NAME", target_metadata=two, **options)
"""


def test_two_groups_of_one_application(tmp_path: Path) -> None:
    """Each group of commands works on its own repository, and drops no version table of another."""
    write_app(tmp_path, TWO.replace("NAME", "other"))
    flask(tmp_path, *(f"{group} init" for group in ("db", "other")))
    for command in ("migrate", "upgrade", "check"):
        flask(tmp_path, f"db {command}", f"other {command}")
    assert tables_of(tmp_path / "main.db") == {"first", "second", "v2"}
    for folder, table in (("of_one", "first"), ("of_two", "second")):
        (revision,) = (tmp_path / folder / "versions").glob("*.py")
        assert revision.read_text().count("op.create_table") == 1
        assert f"op.create_table('{table}'" in revision.read_text()
    assert len(query(tmp_path / "main.db", "SELECT * FROM alembic_version")) == 1


FUNCTIONS = """
import app, flask_migrate
with app.app.app_context():
    for folder in ("of_one", "of_two"):
        flask_migrate.init(folder)
        flask_migrate.migrate(folder)
        flask_migrate.upgrade(folder)
    assert app.app.extensions["migrate"].directory == "of_two"
    print(app.app.extensions["migrate"].migrate.get_config().get_main_option("script_location"))
"""


def test_functions_with_the_directory_of_a_group(tmp_path: Path) -> None:
    """A function that is given the directory of one of the objects works with its keywords."""
    write_app(tmp_path, TWO.replace("NAME", "other"))
    done = subprocess.run(
        [sys.executable, "-c", FUNCTIONS],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "of_two"
    assert tables_of(tmp_path / "main.db") == {"first", "second", "v2"}


def test_two_groups_of_one_name(tmp_path: Path) -> None:
    """Where a group takes another's name, as with Flask-Migrate, each command says so."""
    write_app(tmp_path, TWO.replace("NAME", "db"))
    _, heads = flask(tmp_path, "db init", "db heads")
    assert "this one is for of_two, that for of_one cannot be reached" in heads.stderr
    assert (tmp_path / "of_two").is_dir()
    assert not (tmp_path / "of_one").exists()


def test_initialised_twice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One object that is initialised twice, or two with one directory, are no two groups."""
    app, db = make_app(tmp_path, "a")
    migrate = Migrate(app, db, tmp_path / "migrations")
    migrate.init_app(app, db)
    Migrate(app, db, tmp_path / "migrations")
    migrate_fully(app)
    assert "cannot be reached" not in caplog.text
    assert tables_of(tmp_path / "a.db") == {"of_a"}
