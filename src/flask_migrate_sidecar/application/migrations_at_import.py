"""Leaves to the run what an application that migrates while it is imported would do by itself.

Every replica would do it, without the lock, and under commands that promise to migrate nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import alembic.context
from alembic.script import ScriptDirectory

from flask_migrate_sidecar.log.logger import get_logger

logger: Final = get_logger(__name__)

# What Alembic's commands give an environment to do, by the functions' names.
_WRITING: Final = {
    "upgrade": "upgrade",
    "downgrade": "downgrade",
    "do_stamp": "stamp",
    "do_ensure_version": "ensure-version",
}


@contextmanager
def migrations_left_to_the_run() -> Iterator[None]:
    """Let `flask_migrate.upgrade()`, upstream's and Alembic's own, do nothing inside of the block.

    All of them end in `ScriptDirectory.run_env` (Alembic), within an environment that knows what
    was asked for.
    """
    run_env = ScriptDirectory.run_env

    def leave(self: ScriptDirectory) -> None:
        environment = vars(alembic.context).get("_proxy")
        function = getattr(environment, "context_opts", {}).get("fn")
        command = _WRITING.get(getattr(function, "__name__", ""))
        if command is None:
            run_env(self)
            return
        logger.warning(
            "migration.left",
            subcommand=command,
            hint="the application migrates while it is imported: that is left to this program's "
            "run, which has the lock; FLASK_MIGRATE_SIDECAR=1 is in the environment, to leave it "
            "out there",
        )

    ScriptDirectory.run_env = leave  # type: ignore[method-assign]
    try:
        yield
    finally:
        ScriptDirectory.run_env = run_env  # type: ignore[method-assign]
