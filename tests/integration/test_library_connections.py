"""A command leaves the connection to SQLite that it ran on as it found it, and others beside it."""

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.config import Config
from alembic.util import CommandError
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Connection, NullPool, QueuePool, StaticPool, event, inspect, text

import flask_migrate
import old_environments as old
from flask_migrate import Migrate
from library import Project
from sqlite_history import ALTER, ROWS, TABLES, add_revision, write_revisions

pytestmark = pytest.mark.filterwarnings("ignore:'get_engine' is deprecated:DeprecationWarning")
HISTORY_OF_THREE = [TABLES.format(action="CASCADE"), ROWS, ALTER]
DELETE = '    op.execute("DELETE FROM author")\n'
OPTIONS: dict[str, dict[str, Any]] = {
    "StaticPool": {"poolclass": StaticPool},
    "QueuePool": {"poolclass": QueuePool},
    "NullPool": {"poolclass": NullPool},
    "AUTOCOMMIT": {"isolation_level": "AUTOCOMMIT"},
}
if sys.version_info >= (3, 12):  # Python manual, "sqlite3", Transaction control
    OPTIONS |= {
        f"autocommit={value}": {"connect_args": {"autocommit": value}} for value in (False, True)
    }
SHARED = """
from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection)
with context.begin_transaction():
    context.run_migrations()
"""


def make_project(
    folder: Path, environment: str = old.VERSION_4, url: str = "", **options: Any
) -> Project:
    """Make an application that enforces foreign keys, with a history, in the test's process."""
    write_revisions(folder, HISTORY_OF_THREE, environment)
    app = Flask("project")
    app.config["SQLALCHEMY_DATABASE_URI"] = url or f"sqlite:///{folder}/main.db"
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = options
    db = SQLAlchemy(app)
    with app.app_context():
        event.listen(db.engine, "connect", _enforce)
    return Project(
        folder, app, db, Migrate(app, db, str(folder / "migrations"), transactional_ddl=True)
    )


def _enforce(connection: Any, _record: Any) -> None:
    control = getattr(connection, "autocommit", None)
    if control is False:  # a transaction is open already, in which nothing is switched on
        connection.autocommit = True
    connection.execute("PRAGMA foreign_keys = ON").close()
    if control is False:
        connection.autocommit = False


def read_state(connection: Connection) -> tuple[Any, ...]:
    """Read what a command could leave behind on a connection."""
    driver: Any = connection.connection.driver_connection
    enforced = driver.execute("PRAGMA foreign_keys").fetchone()[0]
    return enforced, driver.isolation_level, driver.in_transaction


def count_books(project: Project) -> int:
    """Count the rows that refer to others."""
    found: int = project.db.session.execute(text("SELECT count(*) FROM book")).scalar_one()
    project.db.session.remove()
    return found


@pytest.mark.parametrize(
    ("name", "url"), [*((name, "") for name in OPTIONS), ("StaticPool", "sqlite://")]
)
def test_connection_is_as_it_was(name: str, url: str, tmp_path: Path) -> None:
    """Foreign keys are enforced again, whether the command ended well or not; nothing is open."""
    project = make_project(tmp_path, url=url, **OPTIONS[name])
    with project.app.app_context():
        with project.db.engine.connect() as connection:
            before = read_state(connection)
        flask_migrate.upgrade()
        assert count_books(project) == 3
        add_revision(project.folder, 4, DELETE)
        for _ in range(2):
            with pytest.raises(CommandError, match="3 rows refer"):
                flask_migrate.upgrade()
            assert count_books(project) == 3
        with project.db.engine.connect() as connection:
            assert read_state(connection) == before
            connection.execute(text("DELETE FROM author"))
            assert connection.execute(text("SELECT count(*) FROM book")).scalar_one() == 0
        project.db.engine.dispose()


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[tuple[Project, Connection]]:
    """Return an application whose `env.py` takes a connection of the caller's, and that."""
    project = make_project(tmp_path, SHARED, poolclass=NullPool)
    with project.app.app_context(), project.db.engine.connect() as connection:

        @project.migrate.configure
        def share(config: Config) -> Config:
            config.attributes["connection"] = connection
            return config

        yield project, connection


def test_connection_of_the_caller(shared: tuple[Project, Connection]) -> None:
    """A connection that `env.py` does not open is as it was when the command is over."""
    project, connection = shared
    before = read_state(connection)
    flask_migrate.upgrade()
    assert read_state(connection) == before
    assert count_books(project) == 3


@pytest.mark.parametrize("ends", ["commit", "rollback"])
def test_transaction_of_the_caller(ends: str, shared: tuple[Project, Connection]) -> None:
    """The caller of a command decides over its own transaction, and has foreign keys behind it."""
    project, connection = shared
    before = read_state(connection)
    transaction = connection.begin()
    flask_migrate.upgrade()
    assert connection.execute(text("SELECT count(*) FROM book")).scalar_one() == 3
    getattr(transaction, ends)()
    with connection.begin():
        assert read_state(connection)[0] == 1
    assert read_state(connection) == before
    assert len(inspect(project.db.engine).get_table_names()) == (3 if ends == "commit" else 0)


def test_commands_that_look_begin_nothing(tmp_path: Path) -> None:
    """What only reads is not kept from it by a writer, nor is an upgrade without work."""
    project = make_project(tmp_path, poolclass=NullPool, connect_args={"timeout": 0.01})
    with project.app.app_context():
        flask_migrate.upgrade()
        with closing(sqlite3.connect(tmp_path / "main.db", isolation_level=None)) as writer:
            writer.execute("BEGIN IMMEDIATE")
            writer.execute("UPDATE author SET name = 'Eve'")
            flask_migrate.current()
            flask_migrate.upgrade()
