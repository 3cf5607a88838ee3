"""What stayed of a run that failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .progress import Progress
from .reading import Readings
from .revisions import find_ancestors

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory


def find_outcome(
    progress: Progress, script: ScriptDirectory, after: Readings
) -> dict[str, list[str | None]]:
    """Tell the revisions that stayed (`kept`) from those that were rolled back.

    Where DDL is not transactional (MariaDB, SQLite), the one that failed may have left its first
    statements behind: it is neither, but `unfinished`.
    """
    found: dict[str, list[str | None]] = {"kept": [], "rolled_back": []}
    running = [progress.running] if progress.running is not None else []
    for step in [*progress.applied, *running]:
        there = step.revision in find_ancestors(script, after.get(step.database, ()))
        stayed = not there if step.direction == "downgrade" else there
        gone = "rolled_back"
        if step is progress.running and not progress.is_transactional:
            gone = "unfinished"
        found.setdefault("kept" if stayed else gone, []).append(step.revision)
    return found
