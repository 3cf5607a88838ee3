"""One subcommand of the application's group: parsed, judged and run.

A click group's `main()` is never called: it turns a KeyboardInterrupt into `Abort` and prints.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal

import click
from flask.cli import ScriptInfo

from flask_migrate_sidecar.errors import ConfigurationError, UsageError
from flask_migrate_sidecar.process.os_exit import forked_children_ended
from flask_migrate_sidecar.settings.command_line import STOCK, find_subcommand
from flask_migrate_sidecar.settings.options import SETTINGS

from .loading import Application
from .migrations_only import MIGRATIONS_ONLY

WRITING: Final = frozenset({"upgrade", "downgrade", "stamp", "ensure-version"})
READING: Final = frozenset({"current", "check", "migrate"})
COMPARING: Final = frozenset({"migrate", "check"})
# These run env.py under `revision_environment`, and so need a database.
ENVIRONMENTAL: Final = frozenset({"revision", "merge", "history"})
_LIBRARY: Final = "flask_migrate"
# What they write to stdout is for a person or for the application to decide.
KEEPS_STDOUT: Final = frozenset({"edit", "list-templates"})


@dataclass(frozen=True)
class Subcommand:
    """A subcommand with its parsed arguments.

    Args:
        name: as the user knows it, `upgrade`.
        group: click's context of the group.
        context: click's context of the subcommand.
    """

    name: str
    group: click.Context
    context: click.Context

    @property
    def params(self) -> Mapping[str, Any]:
        """The parsed parameters, those from `FLASK_DB_*` variables included."""
        return self.context.params

    @property
    def is_own(self) -> bool:
        """Whether the application added the command itself, or put its own in a stock one's place.

        One that wraps the stock function as `functools.wraps` does is still that.
        """
        module = str(getattr(self.context.command.callback, "__module__", ""))
        return self.name not in STOCK or module.partition(".")[0] != _LIBRARY

    @property
    def is_offline(self) -> bool:
        """Whether nothing connects to a database."""
        return not self.is_own and bool(self.params.get("sql"))

    @property
    def writes(self) -> bool:
        """Whether it changes databases, and so must hold the lock."""
        return self.is_own or (self.name in WRITING and not self.is_offline)

    @property
    def compares(self) -> bool:
        """Whether it compares the models with a database."""
        return not self.is_own and (
            self.name in COMPARING
            or bool(self.name == "revision" and self.params.get("autogenerate"))
        )

    @property
    def keeps_stdout(self) -> bool:
        """Whether stdout is the command's own."""
        return self.is_own or self.name in KEEPS_STDOUT

    @property
    def directory(self) -> str | None:
        """The repository that was named with `-d`, for the subcommand or for the group."""
        own = None if self.is_own else self.params.get("directory")
        directory = own or self.group.params.get("directory")
        return str(directory) if directory else None

    def reads(self, *, revision_environment: bool) -> bool:
        """Whether it looks at a database."""
        if self.is_offline:
            return False
        looks_at_current = self.params.get("revision") == "current" or (
            self.name == "history"
            and (
                bool(self.params.get("indicate_current"))
                or "current" in str(self.params.get("rev_range") or "").split(":")
            )
        )
        return (
            self.writes
            or self.name in READING
            or self.compares
            or looks_at_current
            or (revision_environment and self.name in ENVIRONMENTAL)
        )

    @property
    def binds(self) -> list[str]:
        """The databases that `--bind` names; none means all."""
        return [] if self.is_own else [*(self.params.get("bind") or ())]

    def selects(self, database: str) -> bool:
        """Whether a database is to be touched."""
        return not self.binds or database in self.binds

    def prepare(self, stack: ExitStack) -> Literal[True]:
        """Run the group's own function, which keeps `-d` and `-x` for the subcommand.

        Raises:
            SystemExit: the application's function left.
        """
        stack.enter_context(self.group)
        try:
            click.Command.invoke(self.group.command, self.group)
        except click.exceptions.Exit as error:
            raise SystemExit(error.exit_code) from error
        return True

    def run(self) -> Any:
        """Run the subcommand.

        Raises:
            BaseException: what the command raised, out of the wrappers that click and
                Flask-Migrate put around it.
        """
        try:
            with forked_children_ended(), self.context:
                return self.context.command.invoke(self.context)
        except click.exceptions.Exit as error:
            if error.exit_code:
                raise SystemExit(error.exit_code) from error
            return None
        except (click.Abort, SystemExit, click.ClickException) as error:
            if self.is_own and ends_well(error):
                return None
            raise unwrap(error) from None


def may_read(arguments: Sequence[str]) -> bool:
    """Guess, before the application is there to parse them, whether arguments read a database."""
    return not {"--sql", "--help"} & {*arguments} and any(
        word in WRITING | READING for word in arguments
    )


def ends_well(error: BaseException) -> bool:
    """Tell whether a command of the application's own ended with `sys.exit()` or `sys.exit(0)`.

    That is success, as in click; but not where `env.py` or a revision ended it.
    """
    # Its code may be any object, and then it is no success.
    if not isinstance(error, SystemExit) or error.code not in (None, 0):
        return False
    alembics = Path(str(find_spec("alembic").origin)).parent  # type: ignore[union-attr]
    frames = traceback.extract_tb(error.__traceback__)
    return not any(alembics in Path(frame.filename).parents for frame in frames)


def refuse_comparing(application: Application, subcommand: Subcommand) -> None:
    """Refuse to compare a database with models that are not there.

    Raises:
        ConfigurationError: the command would propose to drop every table.
    """
    if application.source == MIGRATIONS_ONLY and subcommand.compares:
        raise ConfigurationError(
            f"{subcommand.name} compares the models with the database, but without the "
            "application there are no models: every table would be dropped",
            hint="mount the application, or name it with --app or --app-dir",
        )


def unwrap(error: BaseException) -> BaseException:
    """Give the error that was meant: upstream raises SystemExit(1) while it handles one."""
    inner = error.__cause__ or error.__context__
    if isinstance(error, click.UsageError) or inner is None:
        return error
    return inner


def parse_subcommand(
    application: Application, arguments: Sequence[str], *, directory: str | None
) -> Subcommand:
    """Parse a subcommand of the application's group.

    Args:
        application: the loaded application.
        arguments: what stands behind `db`.
        directory: the repository that the sidecar's own settings name.

    Raises:
        UsageError: there is no such subcommand, or its arguments do not fit.
        SystemExit: it was answered already, with 0 for `--help`.
    """
    name, group = application.command, application.group
    if not arguments:
        raise UsageError(f"{name}: a subcommand is needed", hint=f"see flask-migrate {name} --help")
    root = click.Context(
        click.Group("flask"),
        info_name="flask-migrate",
        obj=ScriptInfo(create_app=lambda: application.app),
        auto_envvar_prefix="FLASK",
    )
    own = ["-d", directory] if directory and has_option(group, "--directory") else []
    try:
        outer = group.make_context(name, [*own, *arguments], parent=root)
        rest = [*_protected(outer), *outer.args]
        subname, command, rest = group.resolve_command(outer, rest)
        if subname is None or command is None:
            outer.fail("a subcommand is needed")
        inner = command.make_context(subname, rest, parent=outer)
    except click.exceptions.Exit as error:
        raise SystemExit(error.exit_code) from error
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else f"flask-migrate {name}"
        raise UsageError(error.format_message(), hint=f"see {where} --help") from error
    return Subcommand(subname, outer, inner)


def _protected(context: click.Context) -> Sequence[str]:
    """Give the subcommand's name, which click keeps in an attribute of changing name."""
    found = vars(context).get("_protected_args", vars(context).get("protected_args"))
    return found or ()


def has_option(command: click.Command, flag: str) -> bool:
    """Tell whether a command has an option of its own."""
    return any(flag in parameter.opts for parameter in command.params)


def own_options(group: click.Group, arguments: Sequence[str]) -> set[str]:
    """Give the options of the sidecar's names that a subcommand has itself.

    Where the words name a group, what they name below it counts too. What cannot be found out, for
    the application's code raises, is told when the words are parsed.
    """
    ours = {setting.flag for setting in SETTINGS}
    if group.get_command(click.Context(group), find_subcommand(arguments) or "") is None:
        return {"--directory"}
    try:
        return ours & {
            flag for command in _find_named(group, arguments) for flag in _flags(command)
        }
    except (Exception, SystemExit):  # noqa: BLE001 - code of the application
        return ours


def _find_named(group: click.Group, words: Sequence[str]) -> Iterator[click.Command]:
    """Find the commands that words name, one below the other; no other one is loaded."""
    rest = [word for word in words if not word.startswith("-")]
    while rest:
        if group.chain:
            # Any of the words may be one of them, or a value.
            found = (group.get_command(click.Context(group), word) for word in rest)
            yield from (command for command in found if command is not None)
            return
        command = group.get_command(click.Context(group), rest.pop(0))
        if command is not None:
            yield command
            if not isinstance(command, click.Group):
                return
            group = command


def _flags(command: click.Command) -> Iterator[str]:
    """List the options that a command takes, as they are written."""
    settings = command.context_settings
    mixes = settings.get("allow_interspersed_args", command.allow_interspersed_args)
    hands_on = not mixes and not isinstance(command, click.Group)
    if hands_on or settings.get("ignore_unknown_options"):
        # What it does not know, or what stands behind its first argument, is for it too.
        yield from (setting.flag for setting in SETTINGS)
    for parameter in command.params:
        yield from (*parameter.opts, *parameter.secondary_opts)
