"""Alembic for Flask and Flask-SQLAlchemy: `flask db ...`, and the same as functions.

    db = SQLAlchemy()
    migrate = Migrate(app, db)

A drop-in for Flask-Migrate 4. Alembic is imported when a command runs, not before: a web worker
that only creates its application does not pay for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .commands import (
    branches,
    check,
    current,
    downgrade,
    edit,
    ensure_version,
    heads,
    history,
    init,
    list_templates,
    merge,
    migrate,
    revision,
    show,
    stamp,
    upgrade,
)
from .extension import Migrate
from .state import _MigrateConfig as _MigrateConfig

if TYPE_CHECKING:
    from .cli import catch_errors
    from .config import Config, alembic_version

__all__ = [
    "Config",
    "Migrate",
    "alembic_version",
    "branches",
    "catch_errors",
    "check",
    "current",
    "downgrade",
    "edit",
    "ensure_version",
    "heads",
    "history",
    "init",
    "list_templates",
    "merge",
    "migrate",
    "revision",
    "show",
    "stamp",
    "upgrade",
]

_LATE = {"Config": "config", "alembic_version": "config", "catch_errors": "cli"}


def __getattr__(name: str) -> Any:
    """Import on first use what needs Alembic or click (PEP 562)."""
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{_LATE[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the late names too."""
    return sorted({*globals(), *_LATE})
