"""How a command was called: by `flask db ...` or by a program, and with what."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

import click
from flask import g, has_app_context

# What a function of ours takes for a path, and for one name or several.
StrPath = str | os.PathLike[str]
Names = str | Sequence[str]

# Whether the command runs as `flask db ...`: then, and only then, env.py sets up logging.
from_command_line: ContextVar[bool] = ContextVar("from_command_line", default=False)


def keep_group_options(options: dict[str, Any]) -> None:
    """Keep the options of the group for the subcommand, which click does not hand them to.

    They end with the group: the application's context may live on, as in a test.
    """
    context, before = click.get_current_context(), group_options()
    g._flask_migrate_group = {**options, "command": context.info_name}  # noqa: SLF001
    context.call_on_close(lambda: setattr(g, "_flask_migrate_group", before))


def group_options() -> dict[str, Any]:
    """Give the options that stood before the subcommand: `flask db -d DIR upgrade`."""
    options: dict[str, Any] = g.get("_flask_migrate_group", {}) if has_app_context() else {}
    return options
