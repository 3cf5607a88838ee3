"""`flask-migrate status`: prints what each database holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

from flask_migrate_sidecar.database.connect import Database
from flask_migrate_sidecar.database.url import is_memory
from flask_migrate_sidecar.errors import (
    AppError,
    RefusedError,
    SidecarError,
    UnavailableError,
)
from flask_migrate_sidecar.history.environment import Readings, label_place
from flask_migrate_sidecar.history.failure import explained
from flask_migrate_sidecar.history.position import describe_position
from flask_migrate_sidecar.history.reading import read_databases
from flask_migrate_sidecar.history.repository import Repository, open_repository
from flask_migrate_sidecar.history.revisions import find_heads, open_history
from flask_migrate_sidecar.lock.acquire import read_holder
from flask_migrate_sidecar.lock.base import LockTarget

from .coverage import require_version_table
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
        repository = open_repository(
            session.application, session.settings.directory, session.line.x_arg or None
        )
        with explained(repository.folder):
            script = open_history(repository.config)
        reached, failure = _reach(session)
        found: Readings | None = None
        if reached:
            if failure is not None:
                repository.config.cmd_opts.bind = reached
            try:
                found = _read(session, repository, script)
            except SidecarError:
                # An env.py that connects to all of them at once cannot read one without the others.
                if failure is None:
                    raise
        require_version_table(session, found or {})
        states: States = {}
        for database in session.databases:
            is_reached = database.name in reached
            states |= _describe(session, database, script, found, is_reached=is_reached)
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
        except (UnavailableError, RefusedError, AppError) as error:
            failure = error
    return reached, failure


def _read(session: Session, repository: Repository, script: ScriptDirectory) -> Readings:
    with explained(repository.folder):
        return read_databases(
            session.application,
            session.environments,
            repository.config,
            script,
            session.patience,
        )


def _describe(
    session: Session,
    database: Database,
    script: ScriptDirectory,
    found: Readings | None,
    *,
    is_reached: bool,
) -> States:
    """Describe a database: once, or where it has tenants, each of them."""
    lock = {"kind": session.settings.lock, "held": False, "holder": None}
    places = [place for place in found or {} if place.database == database.name]
    if found is None or not places:
        nothing = {"current": [], "heads": find_heads(script), "pending": [], "unknown": []}
        # The repository's env.py does not come to each bind of the application.
        state = "unreachable" if not is_reached else "unread" if found is None else "unmanaged"
        return {database.name: {"state": state, **nothing, "lock": {**lock, "held": None}}}
    if not is_memory(database.url):
        with suppress(SidecarError):
            lock |= _describe_lock(session, database)
    targets = session.line.targets
    with explained():
        return {
            label_place(place, places): {
                **describe_position(script, found[place], targets),
                "lock": lock,
            }
            for place in places
        }


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
