"""The history that the code has: its revisions, and how they follow from one another."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from alembic.script import ScriptDirectory

from flask_migrate_sidecar.errors import ConfigurationError, HistoryError, UsageError

P = TypeVar("P")

_TARGET_NAMES: Final = frozenset({"head", "heads", "base", "current"})
_TARGETS: Final = "name a revision, or a branch as in app@head; none means all heads"


@contextmanager
def strict_history() -> Iterator[None]:
    """Make errors of what Alembic only warns of: duplicate and missing revisions."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=r"Revision .* is present more than once")
        warnings.filterwarnings("error", message=r"Revision .* is not present")
        yield


def check_places(config: Any, *, may_be_missing: bool = False) -> None:
    """Want the folders of the revisions to be there: Alembic passes over one that is not.

    Args:
        config: Alembic's configuration.
        may_be_missing: the command makes the folder where it is missing.

    Raises:
        ConfigurationError: one is missing, is no folder, or this user may not read it.
    """
    script = ScriptDirectory.from_config(config)
    for place in map(Path, script._version_locations):  # noqa: SLF001 - as it was configured
        try:
            _read_place(place, recursive=script.recursive_version_locations)
        except FileNotFoundError as error:
            if not may_be_missing:
                raise _explain_place(place, error) from error
        except OSError as error:
            raise _explain_place(place, error) from error


def _read_place(place: Path, *, recursive: bool) -> None:
    for entry in os.scandir(place):
        if recursive and entry.is_dir(follow_symlinks=False):
            _read_place(Path(entry.path), recursive=True)


def _explain_place(place: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"the revisions in {place} cannot be read: {error.strerror}",
        hint="check that the image or the volume holds that folder (.dockerignore, a ConfigMap "
        "without its subfolders) and that this user may read it; 'migrate' and 'revision' make a "
        "new one",
    )


def open_history(config: Any) -> ScriptDirectory:
    """Load every revision of a repository.

    A revision may ask `op` or `context` while its file is loaded, which upstream allows because
    `env.py` runs around it. Then it is loaded inside of `env.py` by whoever calls `load`.

    Raises:
        ConfigurationError: a folder of revisions cannot be read.
        UserWarning: the revisions do not fit together.
        Exception: what Alembic or a revision's file raises.
    """
    check_places(config)
    script = ScriptDirectory.from_config(config)
    with suppress(NameError, AttributeError):
        load(script)
        _require_names(script)
    return script


def _require_names(script: ScriptDirectory) -> None:
    """Want no revision to be called like a target.

    Raises:
        HistoryError: one is.
    """
    for name, revision in script.revision_map._revision_map.items():  # noqa: SLF001
        if name in _TARGET_NAMES and revision is not None:
            raise HistoryError(
                f"a revision is called {name!r}, which commands take for a target: "
                f"{getattr(revision, 'path', script.dir)}",
                hint="give it another id, in its file and in what comes after it",
            )


def load(script: ScriptDirectory) -> None:
    """Load the revisions, unless they are.

    Raises:
        UserWarning: the revisions do not fit together.
        Exception: what Alembic or a revision's file raises.
    """
    with strict_history():
        _ = script.revision_map.heads


def require_lines(script: ScriptDirectory, held: Sequence[str]) -> None:
    """Want no revision of a version table to come after another one of it.

    Raises:
        HistoryError: one does.
    """
    for revision in held if len(held) > 1 else ():
        older = {*_follow_down(script, revision)} & {*held}
        if older:
            raise HistoryError(
                f"the version table holds {revision} and {min(older)}, which comes before it: only "
                "the last revision of a line belongs there",
                hint=f"delete the row of {min(older)}, or write the table anew with "
                f"'stamp --purge {revision}'",
            )


def _follow_down(script: ScriptDirectory, revision: str) -> Iterator[str]:
    """Give what comes before a revision; what it depends on is of another line."""
    waiting = [revision] if is_known(script, revision) else []
    seen: set[str] = set()
    while waiting:
        found = script.get_revision(waiting.pop())
        below = {*(found._versioned_down_revisions if found else ())} - seen  # noqa: SLF001
        yield from below
        seen |= below
        waiting += below


def find_heads(script: ScriptDirectory) -> list[str]:
    """Give the heads, none where the revisions load inside of `env.py` only, and it did not run."""
    with suppress(NameError, AttributeError):
        return sorted(script.get_heads())
    return []


def find_targets(script: ScriptDirectory, targets: Sequence[str]) -> set[str]:
    """Give the revisions that databases are compared with: the heads, unless others are named.

    Args:
        script: the history.
        targets: as `upgrade` takes them, `branch@head` among them; none means the heads.

    Raises:
        UsageError: one of them counts from where a database is, or is no revision at all.
        Exception: Alembic's, where the code has no such revision.
    """
    if not targets:
        return set(script.get_heads())
    found: set[str] = set()
    for target in targets:
        if is_relative(target):
            raise UsageError(f"{target} is another revision for each database", hint=_TARGETS)
        meant = {revision.revision for revision in script.get_revisions(target) if revision}
        if not meant:
            raise UsageError(f"{target} is before every revision", hint=_TARGETS)
        found |= meant
    return found


def is_known(script: ScriptDirectory, revision: str) -> bool:
    """Tell whether the code has a revision; the full identifier is needed."""
    found = script.revision_map._revision_map.get(revision)  # noqa: SLF001
    return found is not None and found.revision == revision


def find_ancestors(script: ScriptDirectory, revisions: Iterable[str]) -> set[str]:
    """Give revisions and all that came before them, dependencies included."""
    found: set[str] = set()
    # One at a time: Alembic refuses those of which one depends on another.
    for known in (revision for revision in revisions if is_known(script, revision)):
        walk = script.revision_map.iterate_revisions(known, "base", inclusive=True)
        found |= {revision.revision for revision in walk}
    return found


def find_pending(
    script: ScriptDirectory, target: str, current: Mapping[P, tuple[str, ...]]
) -> dict[P, list[str]]:
    """Find the revisions that an upgrade would run in each place."""
    return {
        place: [str(step.info.up_revision_id) for step in script._upgrade_revs(target, revisions)]  # type: ignore[arg-type]  # noqa: SLF001
        for place, revisions in current.items()
    }


def is_relative(target: str) -> bool:
    """Tell whether a target means another revision for each state of the database."""
    return re.search(r"[+-]\d+$", target) is not None
