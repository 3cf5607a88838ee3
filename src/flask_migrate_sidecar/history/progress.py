"""Follows a command through its revisions, and logs them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from flask_migrate_sidecar.database.dialect import find_dialect
from flask_migrate_sidecar.log.logger import get_logger
from flask_migrate_sidecar.process.os_exit import forked_children_ended

from .environment import Function, Place

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext
    from sqlalchemy import Connection

logger: Final = get_logger(__name__)


@dataclass(frozen=True)
class Step:
    """One revision that runs in one database."""

    place: Place
    tenant: str | None
    direction: str
    revision: str | None
    down_revision: str | None
    message: str

    def describe(self) -> dict[str, Any]:
        """Give the fields of a log line."""
        tenant = {"tenant": self.tenant} if self.tenant is not None else {}
        return {
            "database": self.place.database,
            **tenant,
            "direction": self.direction,
            "revision": self.revision,
            "down_revision": self.down_revision,
            "message": self.message,
        }


@dataclass
class Progress:
    """What a command has done so far, and what it does now.

    Args:
        verify: called between revisions; raises to stop the run.
        find_tenant: tells a place from others of its database.
    """

    verify: Callable[[], None] = lambda: None
    find_tenant: Callable[[Place], str | None] = lambda _place: None
    before: dict[Place, tuple[str, ...]] = field(default_factory=dict)
    after: dict[Place, tuple[str, ...]] = field(default_factory=dict)
    applied: list[Step] = field(default_factory=list)
    running: Step | None = None
    running_since: float = 0.0
    is_transactional: bool = True
    # What the running revision has committed before the version table says that it ran.
    commits: int = 0
    has_ended: bool = False
    # Revisions of which a part stays, whether or not the version table says that they ran.
    partly_kept: list[Step] = field(default_factory=list)
    # On which connection `env.py` has migrated each.
    connections: dict[Place, Connection | None] = field(default_factory=dict)
    # Revisions whose transaction was open when they were told as applied.
    open_steps: list[Step] = field(default_factory=list)

    @property
    def has_begun(self) -> bool:
        """Whether any revision has run, or begun to."""
        return bool(self.applied) or self.running is not None

    @property
    def leaves_a_part(self) -> bool:
        """Whether a part of what runs stays where it fails."""
        return bool(self.commits) or not self.is_transactional

    def describe(self) -> dict[str, Any]:
        """Say what is known of a run that ends without a look at the databases."""
        if not self.has_begun:
            return {}
        place = {} if self.running is None else describe_place(self.running)
        left = [place["revision"]] if place and self.leaves_a_part else []
        known = {"kept": None, "kept_error": "the run ended before the databases could be read"}
        return {**place, **known, **({"unfinished": left} if left else {})}

    def note_commit(self) -> None:
        """Note that something was committed while a revision runs.

        What is committed behind it holds its version as well, which tells by itself.
        """
        self.commits += not self.has_ended

    def take_commit_back(self) -> None:
        """Note that the last commit has failed."""
        self.commits -= not self.has_ended

    def follow(
        self, place: Place, revisions: Any, context: MigrationContext, function: Function
    ) -> Iterator[Any]:
        """Yield the steps that a command's function gives, and keep count of them."""
        held = tuple(revisions or ())
        self.before.setdefault(place, held)
        self.connections[place] = context.connection
        pending = list(function(revisions, context) or ())
        if pending:
            yield from self._run(place, pending, context)
        self.after[place] = context.get_current_heads() if pending else held

    def _noting_end(self, run: Callable[..., None]) -> Callable[..., None]:
        """Give a revision's function, behind which Alembic writes its version."""

        # Alembic logs a step by the function's name.
        @functools.wraps(run)
        def run_and_note(*arguments: Any, **options: Any) -> None:
            # In a child, env.py would roll the transaction of its parent back.
            with forked_children_ended():
                run(*arguments, **options)
            self.has_ended = True

        return run_and_note

    def _run(
        self, place: Place, pending: Sequence[Any], context: MigrationContext
    ) -> Iterator[Any]:
        tenant = self.find_tenant(place)
        steps = [_describe_step(place, tenant, step) for step in pending]
        told = {} if tenant is None else {"tenant": tenant}
        logger.info(
            "migration.plan",
            database=place.database,
            **told,
            count=len(steps),
            revisions=[{"revision": s.revision, "message": s.message} for s in steps],
        )
        for number, (step, raw) in enumerate(zip(steps, pending, strict=True), start=1):
            self.verify()
            self.running, self.running_since = step, monotonic()
            self.commits, self.has_ended = 0, False
            raw.migration_fn = self._noting_end(raw.migration_fn)
            self.is_transactional = _can_roll_back(context)
            yield raw
            self.partly_kept += [step] if self.leaves_a_part else []
            self.running = None
            self.applied.append(step)
            connection = context.connection
            is_committed = connection is None or not connection.in_transaction()
            self.open_steps += [] if is_committed else [step]
            logger.info(
                "migration.applied",
                **step.describe(),
                step=number,
                steps=len(steps),
                duration_ms=round((monotonic() - self.running_since) * 1000),
                committed=is_committed,
            )
        self.verify()


def _can_roll_back(context: MigrationContext) -> bool:
    """Tell whether DDL is rolled back: what env.py says of it makes no MariaDB that can."""
    can = (
        find_dialect(context.dialect.name).can_transact_ddl or type(context.impl).transactional_ddl
    )
    return bool(can and context.impl.transactional_ddl)


def describe_place(step: Step) -> dict[str, Any]:
    """Give the fields of the last line that say where a step was."""
    tenant = {} if step.tenant is None else {"tenant": step.tenant}
    return {"revision": step.revision, "database": step.place.database, **tenant}


def _describe_step(place: Place, tenant: str | None, step: Any) -> Step:
    """Read what Alembic tells of a step, which may be an upgrade, a downgrade or a stamp."""
    info = step.info
    direction = "stamp" if info.is_stamp else "upgrade" if info.is_upgrade else "downgrade"
    up = ", ".join(info.up_revision_ids) or None
    script = None if info.is_stamp else info.up_revision
    # What it depends on is not what it follows.
    below = info.down_revision_ids if script is None else script._versioned_down_revisions  # noqa: SLF001
    down = ", ".join(below) or None
    if info.is_stamp and not info.is_upgrade:
        up, down = down, up  # Alembic tells the higher one first; a stamp leads to the other
    return Step(place, tenant, direction, up, down, script.doc if script is not None else "")
