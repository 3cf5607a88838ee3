"""What stayed of a run that failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .environment import Readings, label_place
from .progress import Progress
from .revisions import find_ancestors

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory


def find_outcome(
    progress: Progress, script: ScriptDirectory, after: Readings
) -> dict[str, list[str | None]]:
    """Tell the revisions that stayed (`kept`) from those that were rolled back.

    Of a downgrade it is their undoing that stayed (`reverted`) or not. A command of the
    application's may go up and down: the last that it did with a revision counts.

    With several databases or tenants each is named with its own.

    Where DDL is not transactional (MariaDB), or where it committed midway, one that is not
    in the version table may have left statements behind: it is neither, but `unfinished`.
    Where a version table could not be found again, its revisions are `unknown`.
    """
    found: dict[str, list[str | None]] = {"kept": [], "rolled_back": []}
    running = [progress.running] if progress.running is not None else []
    taken = [*progress.applied, *running]
    steps = {(step.place, step.revision): step for step in taken}.values()
    places = {step.place for step in steps}
    for step in steps:
        # Of several version tables, each revision says which.
        where = f"{label_place(step.place, {*places, *after})}: " if len(places) > 1 else ""
        told = f"{where}{step.revision}" if where else step.revision
        if step.place not in after:
            found.setdefault("unknown", []).append(told)
            continue
        there = step.revision in find_ancestors(script, after[step.place])
        stayed = not there if step.direction == "downgrade" else there
        is_running = step is progress.running
        stays = progress.leaves_a_part if is_running else step in progress.partly_kept
        # A stamp makes nothing that could stay.
        stays = stays and step.direction != "stamp"
        gone = "unfinished" if stays else "rolled_back"
        done = "reverted" if step.direction == "downgrade" else "kept"
        found.setdefault(done if stayed else gone, []).append(told)
    return found
