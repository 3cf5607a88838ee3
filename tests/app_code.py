"""Small applications for the tests of how code is brought, and how a run of them is read."""

import ctypes
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from conftest import APPS
from sidecar_runs import Result

Finished = subprocess.CompletedProcess[str] | Result

HEAD = """
import os
from flask import Flask
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ.get("DATABASE_URL", "sqlite:///main.db")
db = SQLAlchemy(app)
migrate = Migrate(app, db)


class Thing(db.Model):
    __tablename__ = "thing"
    id = db.Column(db.Integer, primary_key=True)
"""

REVISION = """
from alembic import op
import sqlalchemy as sa

revision = "a1"
down_revision = None


def upgrade():
    op.create_table("thing", sa.Column("id", sa.Integer, primary_key=True))


def downgrade():
    op.drop_table("thing")
"""


def write_app(folder: Path, body: str = "", *, revision: str = REVISION, name: str = "app") -> Path:
    """Write an application with one revision; return its folder.

    Args:
        folder: where to.
        body: what its module does once everything else is there.
        revision: the text of the revision.
        name: of the module.
    """
    write_repository(folder / "migrations", revision)
    (folder / f"{name}.py").write_text(HEAD + body)
    return folder


def write_repository(folder: Path, revision: str = REVISION) -> Path:
    """Write a migration repository with one revision."""
    ignored = shutil.ignore_patterns("versions", "__pycache__")
    shutil.copytree(APPS / "shop" / "migrations", folder, ignore=ignored)
    (folder / "versions").mkdir()
    (folder / "versions" / "a1_thing.py").write_text(revision)
    return folder


def read_log(result: Finished) -> list[dict[str, Any]]:
    """Read the log, every line of which must be an object."""
    events = [json.loads(line) for line in result.stderr.splitlines()]
    assert all("event" in event for event in events)
    return events


def read_last(result: Finished) -> dict[str, Any]:
    """Read the last line, which tells the exit code."""
    last = read_log(result)[-1]
    assert last["event"] == ("command.failed" if result.returncode else "command.finished")
    assert last["exit_code"] == result.returncode, last
    return last


def find_events(result: Finished, event: str) -> list[dict[str, Any]]:
    """Give the lines of one event."""
    return [line for line in read_log(result) if line["event"] == event]


def cache_folder() -> Path:
    """Give the folder where packages that tests install are kept from run to run."""
    fallback = Path(os.environ.get("TMPDIR", "/tmp")) / "flask-migrate-sidecar-tests"  # noqa: S108
    return Path(os.environ.get("SIDECAR_TEST_CACHE", fallback))


def install_packages(name: str, *requirements: str) -> Path:
    """Install packages into a folder of their own, once; return the folder.

    Whoever comes first installs, and other processes of the tests wait for it.
    """
    # The folder outlives the tests: others that were asked for under the name are not these.
    wanted = hashlib.sha256(" ".join(requirements).encode()).hexdigest()[:8]
    here = f"py{sys.version_info.major}{sys.version_info.minor}"
    folder = cache_folder() / f"{name}-{here}-{wanted}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            shutil.rmtree(folder)
            pip = [sys.executable, "-m", "pip", "install", "-q", "--target", str(folder)]
            done = subprocess.run(
                [*pip, *requirements], capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
            (folder / "complete").touch()
    return folder


def drop_right_to_pass() -> None:
    """Become a root whom the rights of files bind; another user might not even read Python."""
    bounding_set_drop = 24  # PR_CAPBSET_DROP, prctl(2)
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, capabilities(7)
        ctypes.CDLL(None).prctl(bounding_set_drop, capability, 0, 0, 0)
