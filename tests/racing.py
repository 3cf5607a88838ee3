"""An application whose revisions count how often they ran, and many replicas that race for it."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import NullPool, create_engine, text

from following import FollowedRun

TEMPLATE = Path(__file__).parents[1] / "templates" / "flask"

_APP = """\
import os

from flask import Flask
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy

db = SQLAlchemy()


def create_app():
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
    if "SECOND_URL" in os.environ:
        app.config["SQLALCHEMY_BINDS"] = {"second": os.environ["SECOND_URL"]}
    db.init_app(app)
    Migrate(app, db)
    return app
"""

_REVISION = """\
\"\"\"{message}\"\"\"

import time
from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = {down!r}


def upgrade():
{body}
    op.execute("INSERT INTO ran (revision, direction) VALUES ('{revision}', 'up')")


def downgrade():
    op.execute("INSERT INTO ran (revision, direction) VALUES ('{revision}', 'down')")
"""

# Runs until the test lets it go on.
GATED = """\
    while not Path(__file__).with_suffix(".go").exists():
        time.sleep(0.01)
"""
CREATE = '    op.create_table("ran", sa.Column("revision", sa.String(20)), '
CREATE += 'sa.Column("direction", sa.String(20)))'


def write_app(folder: Path, bodies: Sequence[str]) -> Path:
    """Write an application with one revision for each body, `r1`, `r2` and so on.

    The first revision makes the table in which each revision leaves a row.
    """
    folder.mkdir()
    (folder / "app.py").write_text(_APP)
    versions = folder / "migrations" / "versions"
    shutil.copytree(TEMPLATE, folder / "migrations")
    versions.mkdir()
    ini = (folder / "migrations" / "alembic.ini.mako").read_text().replace("%%", "%")
    (folder / "migrations" / "alembic.ini").write_text(ini)
    down = None
    for number, body in enumerate([CREATE, *bodies], start=1):
        revision = f"r{number}"
        source = _REVISION.format(message=f"step {number}", revision=revision, down=down, body=body)
        (versions / f"{revision}.py").write_text(source)
        down = revision
    return folder


@dataclass(frozen=True)
class Replica:
    """One finished replica."""

    code: int
    events: list[dict[str, Any]]

    def named(self, event: str) -> list[dict[str, Any]]:
        """Give its events of one name."""
        return [e for e in self.events if e["event"] == event]


def let_go_on(folder: Path, *revisions: str) -> None:
    """Let gated revisions of an application end, those that wait and those still to come."""
    for revision in revisions:
        (folder / "migrations" / "versions" / f"{revision}.go").touch()


def start(folder: Path, arguments: Sequence[str], env: Mapping[str, str]) -> FollowedRun:
    """Start one sidecar."""
    return FollowedRun(folder, *arguments, env=env)


def finish(process: FollowedRun) -> Replica:
    """Wait for one sidecar and read its log."""
    return Replica(process.finish(), process.events)


def race(folder: Path, environments: Iterable[Mapping[str, str]], *arguments: str) -> list[Replica]:
    """Run one sidecar for each environment, all at once."""
    processes = [start(folder, arguments or ("db", "upgrade"), env) for env in environments]
    return [finish(process) for process in processes]


def race_to_the_gate(folder: Path, environments: Iterable[Mapping[str, str]]) -> list[Replica]:
    """Run one upgrade for each environment; the second revision is gated until all have come.

    While it is, a replica gets the lock or waits for it: none is late, however busy the machine.
    """
    processes = [start(folder, ("db", "upgrade"), env) for env in environments]
    for process in processes:
        process.await_event("lock.acquired", "lock.waiting")
    let_go_on(folder, "r2")
    return [finish(process) for process in processes]


def read_runs(url: str) -> list[tuple[str, str]]:
    """Give each run of a revision, as the database has it."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT revision, direction FROM ran"))
        return sorted((row.revision, row.direction) for row in rows)
