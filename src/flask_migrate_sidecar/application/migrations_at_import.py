"""Leaves to the run what an application that migrates while it is imported would do by itself.

Every replica would do it, without the lock, and under commands that promise to migrate nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import alembic.context
from alembic.script import ScriptDirectory
from flask import current_app, has_app_context

from flask_migrate_sidecar.log.logger import get_logger

logger: Final = get_logger(__name__)

# What Alembic's commands give an environment to do, by the functions' names. A stamp goes with
# tables that the application makes by itself, and without it they would have no revision.
_MIGRATING: Final = frozenset({"upgrade", "downgrade"})


@contextmanager
def migrations_left_to_the_run(repository: Path) -> Iterator[list[str]]:
    """Let `flask_migrate.upgrade()`, upstream's and Alembic's own, do nothing inside of the block.

    All of them end in `ScriptDirectory.run_env` (Alembic), within an environment that knows what
    was asked for. What concerns another repository, a library's own for example, is done.

    Args:
        repository: the run's, where the application does not say otherwise.

    Yields:
        The commands that were left.
    """
    left: list[str] = []
    run_env = ScriptDirectory.run_env

    def leave(self: ScriptDirectory) -> None:
        environment = vars(alembic.context).get("_proxy")
        function = getattr(environment, "context_opts", {}).get("fn")
        command = getattr(function, "__name__", "")
        if command not in _MIGRATING or not _is_of_run(self, repository):
            run_env(self)
            return
        left.append(command)
        logger.warning(
            "migration.left",
            subcommand=command,
            hint="the application migrates while it is imported: that is left to this program's "
            "run, which has the lock; FLASK_MIGRATE_SIDECAR=1 is in the environment, to leave it "
            "out there",
        )

    ScriptDirectory.run_env = leave  # type: ignore[method-assign]
    try:
        yield left
    finally:
        ScriptDirectory.run_env = run_env  # type: ignore[method-assign]


def _is_of_run(script: ScriptDirectory, repository: Path) -> bool:
    """Tell whether a repository is the one that the run is about."""
    known = [repository]
    if has_app_context():
        state = current_app.extensions.get("migrate")
        known += [Path(state.directory)] if state is not None else []
    return Path(script.dir).resolve() in {folder.resolve() for folder in known}
