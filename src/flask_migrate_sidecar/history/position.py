"""Where databases stand among the revisions that the code has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flask_migrate_sidecar.errors import HistoryError

from .environment import Place, Readings, label, label_place
from .revisions import find_ancestors, find_targets, is_known

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory


def check_known(script: ScriptDirectory, current: Readings) -> None:
    """Refuse to go on where a database holds revisions that the code does not have.

    Raises:
        HistoryError: it does.
    """
    for database, revisions in label(current).items():
        unknown = [revision for revision in revisions if not is_known(script, revision)]
        if unknown:
            raise HistoryError(
                f"the database {database} is at revision {', '.join(unknown)}, which this code "
                f"does not have in {script.dir}",
                hint="the database is ahead of this code (an older image runs?) or has another "
                "history: deploy the code that has the revision, or let 'upgrade' pass with "
                "--if-ahead ignore",
                database=database,
                unknown=unknown,
            )


def judge(script: ScriptDirectory, current: Sequence[str], targets: Sequence[str] = ()) -> str:
    """Name the state of a database: empty, behind, at_head, ahead or diverged.

    Args:
        script: the history.
        current: what the database holds.
        targets: what it is compared with, by default the heads of the code.

    Raises:
        UsageError, Exception: a target is none.
    """
    heads, wanted = set(script.get_heads()), find_targets(script, targets)
    if not heads and not current:
        return "empty"
    known = {revision for revision in current if is_known(script, revision)}
    if len(known) < len(current):
        # What is unknown may be another branch's: targets have to be there.
        is_there = not targets or wanted <= find_ancestors(script, known)
        return "ahead" if known <= heads | wanted and is_there else "diverged"
    if wanted <= find_ancestors(script, known):
        return "at_head"
    return "behind" if current else "empty"


def describe_position(
    script: ScriptDirectory, current: Sequence[str], targets: Sequence[str] = ()
) -> dict[str, Any]:
    """Describe where a database is among the revisions.

    Args:
        script: the history.
        current: what the database holds.
        targets: what it is compared with, by default the heads of the code.

    Raises:
        UsageError, Exception: a target is none.
    """
    wanted = find_ancestors(script, find_targets(script, targets))
    missing = wanted - find_ancestors(script, current)
    pending = [r for r in script.walk_revisions() if r.revision in missing]
    unknown = [revision for revision in current if not is_known(script, revision)]
    return {
        "state": judge(script, current, targets),
        "current": sorted(current),
        "heads": sorted(script.get_heads()),
        "pending": [{"revision": r.revision, "message": r.doc} for r in reversed(pending)]
        if not unknown
        else [],
        "unknown": unknown,
    }


def find_missing(
    script: ScriptDirectory, current: Readings, pending: Mapping[Place, Sequence[str]]
) -> set[Place]:
    """Find the places that lack one of the revisions that were pending."""
    return {
        place
        for place, revisions in pending.items()
        if set(revisions) - find_ancestors(script, current.get(place, ()))
    }


def check_progress(
    script: ScriptDirectory,
    before: Readings,
    after: Readings,
    pending: Mapping[Place, Sequence[str]],
    *,
    is_relative: bool,
) -> None:
    """Accept that another migrator has done our work meanwhile, or a part of it before it died.

    Raises:
        HistoryError: the databases moved to where this run would not have brought them, or only
            a part of the way to a target that now means something else.
    """
    for place in find_missing(script, after, pending):
        now, then = (find_ancestors(script, held.get(place, ())) for held in (after, before))
        on_the_way = then <= now <= then | set(pending[place])
        name = label_place(place, before)
        if is_relative or not on_the_way:
            raise HistoryError(
                f"the database {name} moved while this run waited for the lock: it was at "
                f"{', '.join(before[place]) or 'nothing'} and is at "
                f"{', '.join(after.get(place, ())) or 'nothing'}",
                hint="another migrator did something else than this one: look at its log, "
                "then run again",
                database=name,
            )
