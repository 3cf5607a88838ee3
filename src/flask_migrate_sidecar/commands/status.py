"""`flask-migrate status`: prints what each database holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

from flask_migrate_sidecar.database.connect import Database
from flask_migrate_sidecar.database.url import is_memory
from flask_migrate_sidecar.errors import RefusedError, SidecarError, UnavailableError
from flask_migrate_sidecar.history.failure import explained
from flask_migrate_sidecar.history.position import describe_position
from flask_migrate_sidecar.history.reading import Readings, read_databases
from flask_migrate_sidecar.history.repository import open_repository
from flask_migrate_sidecar.history.revisions import find_heads, open_history
from flask_migrate_sidecar.lock.acquire import read_holder
from flask_migrate_sidecar.lock.base import LockTarget

from .session import Result, Session

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

States = dict[str, dict[str, Any]]


def run_status(session: Session) -> Result:
    """Print what each database holds, also where not all of them could be read.

    Raises:
        UnavailableError, RefusedError: one of them could not.
    """
    with session.application.app.app_context():
        repository = open_repository(session.application, session.settings.directory)
        with explained(repository.folder):
            script = open_history(repository.config)
        reached, failure = _reach(session)
        found: Readings = {}
        if reached:
            if failure is not None:
                repository.config.cmd_opts.bind = reached
            with explained(repository.folder):
                found = read_databases(
                    session.application,
                    session.environments,
                    repository.config,
                    script,
                    session.patience,
                )
        states = {
            d.name: _describe(session, d, script, found.get(d.name), is_reached=d.name in reached)
            for d in session.databases
        }
    print_status(states, session.line.form, session.streams.results)
    if failure is not None:
        raise failure
    return Result()


def _reach(session: Session) -> tuple[list[str], SidecarError | None]:
    """Try each database once; give the names of those that answer, and why the others do not."""
    reached, failure = [], None
    for database in session.databases:
        try:
            session.wait([database], writes=False, timeout=0)
            reached.append(database.name)
        except (UnavailableError, RefusedError) as error:
            failure = error
    return reached, failure


def _describe(
    session: Session,
    database: Database,
    script: ScriptDirectory,
    current: tuple[str, ...] | None,
    *,
    is_reached: bool,
) -> dict[str, Any]:
    lock = {"kind": session.settings.lock, "held": False, "holder": None}
    if current is None:
        nothing = {"current": [], "heads": find_heads(script), "pending": [], "unknown": []}
        # The repository's env.py does not come to each bind of the application.
        state = "unmanaged" if is_reached else "unreachable"
        return {**nothing, "state": state, "lock": {**lock, "held": None}}
    if not is_memory(database.url):
        with suppress(SidecarError):
            lock |= _describe_lock(session, database)
    return {**describe_position(script, current), "lock": lock}


def _describe_lock(session: Session, database: Database) -> dict[str, Any]:
    """Look at the lock without taking it."""
    settings = session.settings
    target = LockTarget(database, *session.environments.find_version_table(database.name))
    kind, holder = read_holder(target, kind=settings.lock, connect_timeout=settings.connect_timeout)
    held = holder is not None
    return {"kind": kind, "held": held, "holder": holder.describe() if holder else None}


def print_status(states: States, form: str, results: TextIO) -> None:
    """Print the status as JSON or as a table."""
    if form == "json":
        results.write(json.dumps({"version": 1, "databases": states}) + "\n")
        return
    rows: list[Sequence[str]] = [("DATABASE", "STATE", "CURRENT", "HEADS", "PENDING", "LOCK")]
    for name, state in states.items():
        current, heads = ", ".join(state["current"]) or "-", ", ".join(state["heads"]) or "-"
        lock = {True: "held", False: "free", None: "?"}[state["lock"]["held"]]
        rows.append((name, state["state"], current, heads, str(len(state["pending"])), lock))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        results.write("  ".join(cells).rstrip() + "\n")
