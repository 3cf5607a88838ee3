"""Where databases stand among the revisions that the code has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .errors import HistoryError
from .log import get_logger

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

    from .migrations import Observer

logger = get_logger(__name__)

Readings = Mapping[str, tuple[str, ...]]


def ancestors(script: ScriptDirectory, revisions: Iterable[str]) -> set[str]:
    """Give revisions and all that came before them, dependencies included."""
    known = [revision for revision in revisions if is_known(script, revision)]
    if not known:
        return set()
    walk = script.revision_map.iterate_revisions(tuple(known), "base", inclusive=True)
    return {revision.revision for revision in walk}


def is_known(script: ScriptDirectory, revision: str) -> bool:
    """Tell whether the code has a revision; the full identifier is needed."""
    found = script.revision_map._revision_map.get(revision)  # noqa: SLF001
    return found is not None and found.revision == revision


def check_known(script: ScriptDirectory, current: Readings) -> None:
    """Refuse to go on where a database holds revisions that the code does not have.

    Raises:
        HistoryError: it does.
    """
    for database, revisions in current.items():
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


def judge(script: ScriptDirectory, current: Sequence[str]) -> str:
    """Name the state of a database: empty, behind, at_head, ahead or diverged."""
    heads = set(script.get_heads())
    known = {revision for revision in current if is_known(script, revision)}
    if len(known) < len(current):
        return "ahead" if known <= heads else "diverged"
    if heads <= ancestors(script, known):
        return "at_head"
    return "behind" if current else "empty"


def describe_revisions(script: ScriptDirectory, current: Sequence[str]) -> dict[str, Any]:
    """Describe where a database is among the revisions."""
    passed = ancestors(script, current)
    pending = [r for r in script.walk_revisions() if r.revision not in passed]
    unknown = [revision for revision in current if not is_known(script, revision)]
    return {
        "state": judge(script, current),
        "current": sorted(current),
        "heads": sorted(script.get_heads()),
        "pending": [{"revision": r.revision, "message": r.doc} for r in reversed(pending)]
        if not unknown
        else [],
        "unknown": unknown,
    }


def find_pending(script: ScriptDirectory, target: str, current: Readings) -> dict[str, list[str]]:
    """Find the revisions that an upgrade would run in each database."""
    return {
        name: [str(step.info.up_revision_id) for step in script._upgrade_revs(target, revisions)]  # type: ignore[arg-type]  # noqa: SLF001
        for name, revisions in current.items()
    }


def is_relative(target: str) -> bool:
    """Tell whether a target means another revision for each state of the database."""
    return re.search(r"[+-]\d+$", target) is not None


def find_missing(
    script: ScriptDirectory, current: Readings, pending: Mapping[str, Sequence[str]]
) -> set[str]:
    """Find the databases that lack one of the revisions that were pending."""
    return {
        name
        for name, revisions in pending.items()
        if set(revisions) - ancestors(script, current.get(name, ()))
    }


def check_progress(
    script: ScriptDirectory,
    before: Readings,
    after: Readings,
    pending: Mapping[str, Sequence[str]],
    *,
    is_relative: bool,
) -> None:
    """Accept that another migrator has done our work meanwhile, or a part of it before it died.

    Raises:
        HistoryError: the databases moved to where this run would not have brought them, or only
            a part of the way to a target that now means something else.
    """
    for name in find_missing(script, after, pending):
        now, then = (ancestors(script, readings.get(name, ())) for readings in (after, before))
        on_the_way = then <= now <= then | set(pending[name])
        if is_relative or not on_the_way:
            raise HistoryError(
                f"the database {name} moved while this run waited for the lock: it was at "
                f"{', '.join(before[name]) or 'nothing'} and is at "
                f"{', '.join(after.get(name, ())) or 'nothing'}",
                hint="another migrator did something else than this one: look at its log, "
                "then run again",
                database=name,
            )


def split_applied(observer: Observer, script: ScriptDirectory, after: Readings) -> dict[str, Any]:
    """Tell the revisions that stayed from those that were rolled back.

    Where DDL is not transactional (MariaDB, SQLite), the one that failed may have left its first
    statements behind: it is neither.
    """
    found: dict[str, list[str | None]] = {"kept": [], "rolled_back": []}
    running = [observer.running] if observer.running is not None else []
    for step in [*observer.applied, *running]:
        there = step.revision in ancestors(script, after.get(step.database, ()))
        stayed = there if step.direction == "upgrade" else not there
        gone = "rolled_back"
        if step is observer.running and not observer.is_transactional:
            gone = "unfinished"
        found.setdefault("kept" if stayed else gone, []).append(step.revision)
    return found
