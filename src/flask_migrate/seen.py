"""What the running command has come across, for its errors and its warnings."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alembic.autogenerate import RevisionContext

logger = logging.getLogger("flask_migrate")


@dataclass
class Seen:
    """What a running command has come across.

    Args:
        command: its name.
        revisions: the revisions that the databases hold.
        current: those of the database that was looked at last.
        comparison: models and databases compared, where that is what the command does.
        databases: the names by which `env.py` came to a database; None where it gave none.
        urls: of the databases that it came to.
        places: where the version tables are that it came to, and by which name.
    """

    command: str = ""
    revisions: set[str] = field(default_factory=set)
    current: tuple[str, ...] = ()
    comparison: RevisionContext | None = None
    databases: set[str | None] = field(default_factory=set)
    urls: set[str] = field(default_factory=set)
    places: dict[tuple[str | None, ...], str] = field(default_factory=dict)


seen: ContextVar[Seen | None] = ContextVar("seen", default=None)


def current_command() -> str:
    """Name the running command; '' where none of ours runs."""
    now = seen.get()
    return now.command if now is not None else ""
