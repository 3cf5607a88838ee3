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
    from alembic import command as command
    from alembic.config import Config as _AlembicConfig
    from alembic.util import CommandError as CommandError

    from .cli import catch_errors
    from .config import Config, alembic_version
    from .seen import logger as _logger

    AlembicConfig = _AlembicConfig
    log = _logger

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

# What needs Alembic or click, and where it is; the last four are not listed as public, but
# programs for Flask-Migrate import them.
_LATE = {
    "Config": (".config", "Config"),
    "alembic_version": (".config", "alembic_version"),
    "catch_errors": (".cli", "catch_errors"),
    "AlembicConfig": ("alembic.config", "Config"),
    "CommandError": ("alembic.util", "CommandError"),
    "command": ("alembic", "command"),
    "log": (".seen", "logger"),
}


def __getattr__(name: str) -> Any:
    """Import it on first use (PEP 562)."""
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _LATE[name]
    if name == "command":
        import_module("alembic.command")
    value = getattr(import_module(module, __name__), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the late names too."""
    return sorted({*globals(), *_LATE})
