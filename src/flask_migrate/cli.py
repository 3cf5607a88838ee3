"""The group `flask db`; each command is a function of `commands`, each option declared once."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any, TypeVar

import click
from flask.cli import with_appcontext

from . import commands
from .invocation import from_command_line, group_options, keep_group_options

R = TypeVar("R")

# A command has the options that its function has parameters for.
OPTIONS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "directory": (("-d", "--directory"), {"help": "Migration repository."}),
    "x_arg": (
        ("-x", "--x-arg"),
        {"multiple": True, "help": "Argument for env.py, as NAME=VALUE; repeatable."},
    ),
    # FLASK_DB_NAME is often an application's own variable.
    "name": (
        ("-n", "--name"),
        {"allow_from_autoenv": False, "help": "Section of alembic.ini, in place of [alembic]."},
    ),
    "quiet": (("-q", "--quiet"), {"is_flag": True, "help": "Say less."}),
    "raiseerr": (
        ("--raiseerr",),
        {"is_flag": True, "help": "End with a traceback where a command fails."},
    ),
    "multidb": (("--multidb",), {"is_flag": True, "help": "For several databases."}),
    "template": (
        ("-t", "--template"),
        {"help": "Repository template; with a slash in it, the path of a folder."},
    ),
    "package": (
        ("--package",),
        {"is_flag": True, "help": "Make the repository and its versions Python packages."},
    ),
    "pyproject": (
        ("--pyproject",),
        {"is_flag": True, "help": "Keep the configuration in pyproject.toml, not in alembic.ini."},
    ),
    "message": (("-m", "--message"), {"help": "What the revision does, in a few words."}),
    "autogenerate": (
        ("--autogenerate",),
        {"is_flag": True, "help": "Fill the revision by comparing the models with the database."},
    ),
    "sql": (
        ("--sql",),
        {"is_flag": True, "help": "Print the SQL; do not connect to a database."},
    ),
    "head": (
        ("--head",),
        {"default": "head", "help": "Revision, or <branch>@head, to build upon."},
    ),
    "splice": (("--splice",), {"is_flag": True, "help": "Build upon a revision that is no head."}),
    "branch_label": (("--branch-label",), {"help": "Label of the branch that begins here."}),
    "version_path": (("--version-path",), {"help": "Folder of the file, where there are several."}),
    "rev_id": (("--rev-id",), {"help": "Identifier to use in place of a generated one."}),
    "depends_on": (
        ("--depends-on",),
        {"multiple": True, "help": "Revision that must run before this one; repeatable."},
    ),
    "tag": (("--tag",), {"help": "Any text, for env.py."}),
    "bind": (
        ("--bind",),
        {"multiple": True, "help": "Database to touch ('default' or a bind's name); repeatable."},
    ),
    "rev_range": (("-r", "--rev-range"), {"help": "Range of revisions, [START]:[END]."}),
    "verbose": (("-v", "--verbose"), {"is_flag": True, "help": "Say more."}),
    "indicate_current": (
        ("-i", "--indicate-current"),
        {"is_flag": True, "help": "Mark the revision that the database is at."},
    ),
    "resolve_dependencies": (
        ("--resolve-dependencies",),
        {"is_flag": True, "help": "Take dependencies for parents."},
    ),
    "check_heads": (
        ("-c", "--check-heads"),
        {"is_flag": True, "help": "Fail where a database is not at every head."},
    ),
    "purge": (("--purge",), {"is_flag": True, "help": "Empty the version table first."}),
}


class CommandFailed(click.ClickException):
    """A command failed with an error for the user's eyes; the cause is the error itself."""

    def show(self, file: Any = None) -> None:
        """Print the error, whatever `env.py` did to logging."""
        click.echo(f"ERROR [flask_migrate] Error: {self.format_message()}", file=file, err=True)


class RevisionCommand(click.Command):
    """A command that takes a revision, which may be relative: `-1` is not an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Move relative revisions behind `--`, but not the value of an option."""
        valued = {
            flag
            for option in self.params
            if isinstance(option, click.Option) and not option.is_flag
            for flag in option.opts
        }
        relative = [
            i
            for i, arg in enumerate(args)
            if re.fullmatch(r"-\d+", arg) and (i == 0 or args[i - 1] not in valued)
        ]
        if relative and "--" not in args:
            others = [arg for i, arg in enumerate(args) if i not in relative]
            args = [*others, "--", *(args[i] for i in relative)]
        return super().parse_args(ctx, args)


def raise_for_click(function: Callable[..., R]) -> Callable[..., R]:
    """Make a command end with one line and exit code 1 where its error is the user's."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> R:
        from alembic.util import CommandError

        token = from_command_line.set(True)
        try:
            return function(*args, **kwargs)
        except (CommandError, RuntimeError) as error:
            if group_options().get("raiseerr"):
                raise
            raise CommandFailed(str(error)) from error
        finally:
            from_command_line.reset(token)

    return run


def catch_errors(f: Callable[..., R]) -> Callable[..., R]:
    """Make a function of the application's own print an Alembic error and exit with 1."""

    @functools.wraps(f)
    def run(*args: Any, **kwargs: Any) -> R:
        try:
            return raise_for_click(f)(*args, **kwargs)
        except CommandFailed as error:
            error.show()
            raise SystemExit(error.exit_code) from error.__cause__

    return run


def make_option(name: str) -> click.Option:
    """Make an option from its declaration."""
    flags, attributes = OPTIONS[name]
    return click.Option([*flags, name], **attributes)


GROUP_OPTIONS = ("directory", "x_arg", "name", "quiet", "raiseerr")


@click.group(params=[make_option(name) for name in GROUP_OPTIONS])
@with_appcontext
def db(**options: Any) -> None:
    """Perform database migrations."""
    keep_group_options(options)


def add_command(
    function: Callable[..., Any],
    argument: str = "",
    default: str | None = None,
    *,
    several: bool = False,
) -> click.Command:
    """Add a function to the group, and give the command.

    Args:
        function: one of `commands`.
        argument: the parameter that is given without a flag.
        default: its value where it is not given; None makes it required.
        several: it takes any number of values.
    """
    names = [name for name in inspect.signature(function).parameters if name in OPTIONS]
    params: list[click.Parameter] = [make_option(name) for name in names]
    callback = raise_for_click(function)
    if argument and several:
        params.append(click.Argument([argument], nargs=-1, required=default is None))
        callback = supply_default(callback, argument, default)
    elif argument:
        params.append(click.Argument([argument], default=default))
    summary = (function.__doc__ or "").split("\n\n", maxsplit=1)[0]
    command = RevisionCommand(
        function.__name__.replace("_", "-"),
        params=params,
        callback=with_appcontext(callback),
        help=summary,
    )
    db.add_command(command)
    return command


def supply_default(function: Callable[..., R], name: str, default: str | None) -> Callable[..., R]:
    """Give an argument its default, which click refuses where any number of values is taken."""

    @functools.wraps(function)
    def run(**kwargs: Any) -> R:
        return function(**{**kwargs, name: kwargs[name] or default})

    return run


# Programs import these by name, as they stood in Flask-Migrate's own module.
list_templates = add_command(commands.list_templates)
init = add_command(commands.init)
revision = add_command(commands.revision)
migrate = add_command(commands.migrate)
edit = add_command(commands.edit, "revision", "head")
merge = add_command(commands.merge, "revisions", several=True)
upgrade = add_command(commands.upgrade, "revision", "head")
downgrade = add_command(commands.downgrade, "revision", "-1")
show = add_command(commands.show, "revision", "head")
history = add_command(commands.history)
heads = add_command(commands.heads)
branches = add_command(commands.branches)
current = add_command(commands.current)
stamp = add_command(commands.stamp, "revision", "head", several=True)
check = add_command(commands.check)
ensure_version = add_command(commands.ensure_version)
