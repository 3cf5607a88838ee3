"""A history on SQLite with batch operations, data and foreign keys, and ways to look at a file."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import old_environments as old

APP = """
import os
from pathlib import Path

from flask import Flask
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Engine, event

HERE = Path(__file__).parent
app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{{HERE}}/main.db"


@event.listens_for(Engine, "connect")
def enforce_foreign_keys(connection, _record):
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = {enforced}")
    cursor.close()

{more}
db = SQLAlchemy(app)
migrate = Migrate(app, db{options})
"""

REVISION = '''"""{revision}"""

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = {down!r}


def upgrade(engine_name=""):
{body}


def downgrade():
    pass
'''

TABLES = """\
    op.create_table(
        "author",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(50)),
    )
    op.create_table(
        "book",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("author_id", sa.Integer, nullable=False),
        sa.ForeignKeyConstraint(
            ["author_id"], ["author.id"], name="fk_author", ondelete="{action}"
        ),
    )
"""
ROWS = """\
    op.execute("INSERT INTO author (id, name) VALUES (1, 'Ann'), (2, 'Bob')")
    op.execute("INSERT INTO book (id, author_id) VALUES (1, 1), (2, 1), (3, 2)")
"""
# Copies the table that others refer to.
ALTER = """\
    with op.batch_alter_table("author") as batch:
        batch.alter_column("name", existing_type=sa.String(50), nullable=False)
"""
MORE_ROWS = """\
    for number in range(4, 404):
        op.get_bind().execute(
            sa.text("INSERT INTO book (id, author_id) VALUES (:id, 2)"), {"id": number}
        )
    op.execute("UPDATE author SET name = name || '!'")
"""
WIDEN = """\
    op.add_column("author", sa.Column("country", sa.String(2), server_default="de"))
    with op.batch_alter_table("book") as batch:
        batch.add_column(sa.Column("title", sa.String(80)))
        batch.alter_column("author_id", new_column_name="writer_id", existing_type=sa.Integer)
    op.execute("UPDATE book SET title = 'No. ' || id")
    op.create_index("ix_title", "book", ["title"])
"""
SPLIT = """\
    op.create_table("country", sa.Column("code", sa.String(2), primary_key=True))
    op.execute("INSERT INTO country SELECT DISTINCT country FROM author")
    with op.batch_alter_table("author") as batch:
        batch.create_foreign_key("fk_country", "country", ["country"], ["code"])
    op.execute("DELETE FROM book WHERE id % 7 = 0")
"""
HISTORY = (TABLES.format(action="CASCADE"), ROWS, ALTER, MORE_ROWS, WIDEN, SPLIT)


def write_app(
    folder: Path,
    bodies: Sequence[str],
    *,
    enforced: bool = True,
    more: str = "",
    options: str = "",
    environment: str = old.VERSION_4,
) -> Path:
    """Write an application with one revision for each body, `r1`, `r2` and so on.

    Args:
        folder: where to.
        bodies: what each `upgrade` does.
        enforced: whether the application switches foreign keys on.
        more: source before its database object.
        options: source behind `Migrate(app, db`.
        environment: the source of `env.py`.
    """
    write_revisions(folder, bodies, environment)
    switch = "ON" if enforced else "OFF"
    options += "" if "transactional_ddl" in options else ", transactional_ddl=True"
    (folder / "app.py").write_text(APP.format(enforced=switch, more=more, options=options))
    return folder


def write_revisions(folder: Path, bodies: Sequence[str], environment: str) -> None:
    """Write a repository with one revision for each body."""
    (folder / "migrations/versions").mkdir(parents=True)
    (folder / "migrations/env.py").write_text(environment)
    (folder / "migrations/alembic.ini").write_text(old.INI)
    (folder / "migrations/script.py.mako").write_text(old.SCRIPT)
    for number, body in enumerate(bodies, start=1):
        add_revision(folder, number, body)


def add_revision(folder: Path, number: int, body: str) -> None:
    """Write the revision of a number, or write it anew."""
    down = f"r{number - 1}" if number > 1 else None
    source = REVISION.format(revision=f"r{number}", down=down, body=body)
    (folder / f"migrations/versions/r{number}.py").write_text(source)


def dump(path: Path) -> list[str]:
    """Read all that a SQLite file holds, schema and rows, as statements."""
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


def count(path: Path, table: str) -> int:
    """Count the rows of a table."""
    with closing(sqlite3.connect(path)) as connection:
        found: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        return found


def revisions_of(path: Path) -> list[str]:
    """Read the revisions that a SQLite file is at; none where it has no version table."""
    with closing(sqlite3.connect(path)) as connection:
        if "alembic_version" not in {
            name for (name,) in connection.execute("SELECT name FROM sqlite_master")
        }:
            return []
        return sorted(r for (r,) in connection.execute("SELECT version_num FROM alembic_version"))
