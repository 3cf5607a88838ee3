"""Splits the command line into the sidecar's options and the command.

Uses argparse, because some options decide where packages, click among them, are found.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NoReturn

from flask_migrate_sidecar.errors import UsageError

from .options import SETTINGS

COMMANDS: Final = {
    "db SUBCOMMAND [ARGS]": "run a subcommand of the application's migration commands",
    "wait database": "return once every database accepts a login and answers a query",
    "wait head [TARGETS]": "return once every database is at the code's heads, or the targets",
    "status [TARGETS]": "print what each database holds (--format json|table)",
}
# The subcommands of Flask-Migrate; whatever else stands behind `db` is the application's own.
STOCK: Final = frozenset(
    {
        *("list-templates", "init", "revision", "migrate", "edit", "merge", "upgrade", "downgrade"),
        *("show", "history", "heads", "branches", "current", "stamp", "check", "ensure-version"),
    }
)
FORMATS: Final = ("json", "table")

# Options of the application's own subcommands that the sidecar has too: there they are theirs.
_SHARED: Final = frozenset({"--directory"})
# Options with a value that may stand between `db` and its subcommand.
_VALUED: Final = frozenset({"-d", "-x", "--x-arg", "-n", "--name", *(s.flag for s in SETTINGS)})


class _Parser(argparse.ArgumentParser):
    """A parser that raises instead of printing and exiting."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


@dataclass(frozen=True)
class CommandLine:
    """What was asked for.

    Args:
        command: `db`, `wait database`, `wait head`, `status`, or '' where there is none.
        arguments: what follows `db`, less the sidecar's options.
        flags: values of the sidecar's options, by name of the setting.
        form: how `status` prints.
        x_arg: what `-x` gives `status` and `wait head` for `env.py`.
        targets: the revisions that `status` and `wait head` compare with; none means the heads.
        help: `--help` stands before the command, or behind one of the sidecar's own.
        version: `--version` stands before the command.
        argv: all of it, as it was given.
    """

    command: str = ""
    arguments: tuple[str, ...] = ()
    flags: Mapping[str, list[str]] = field(default_factory=dict)
    form: str = FORMATS[0]
    x_arg: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    help: bool = False
    version: bool = False
    argv: tuple[str, ...] = ()


def parse_command_line(
    argv: Sequence[str], own_options: Collection[str] | None = None
) -> CommandLine:
    """Read the command line.

    Args:
        argv: the arguments, without the program's name.
        own_options: options that belong to the subcommand where they stand behind the command;
            None as long as the application, and so its subcommands, are not known.

    Raises:
        UsageError: an option before the command is unknown or lacks its value, one behind it does
            that is known not to be the subcommand's, or there is no such command.
    """
    before = _make_parser()
    before.add_argument("--help", "-h", action="store_true")
    before.add_argument("--version", action="store_true")
    before.add_argument("command", nargs=argparse.REMAINDER)
    found = vars(before.parse_args(argv))
    command, *words = found.pop("command") or [""]
    wants = {name: found.pop(name) for name in ("help", "version")}
    late, rest = _parse_late(command, words, own_options)
    flags = {name: [*(found[name] or ()), *(late.get(name) or ())] for name in found}
    given = {name: values for name, values in flags.items() if values}
    # The help of `db` and of its subcommands is the application's.
    wants["help"] |= command in {"wait", "status"} and "--help" in rest
    line = CommandLine(command, tuple(rest), given, **wants, argv=tuple(argv))
    return line if line.help or line.version else _parse_own(line)


def find_subcommand(words: Sequence[str]) -> str | None:
    """Give the subcommand among the words behind `db`, None where there is none."""
    waiting = iter(words)
    for word in waiting:
        if not word.startswith("-"):
            return word
        if word in _VALUED:
            next(waiting, None)
    return None


def _make_parser(without: Collection[str] = ()) -> _Parser:
    parser = _Parser(prog="flask-migrate", add_help=False, allow_abbrev=False)
    for setting in SETTINGS:
        if setting.flag not in without:
            parser.add_argument(
                setting.flag, action="append", dest=setting.name, metavar=setting.metavar
            )
    return parser


def _parse_late(
    command: str, words: list[str], own_options: Collection[str] | None
) -> tuple[dict[str, list[str] | None], list[str]]:
    """Take the sidecar's options out of what stands behind the command."""
    is_own = command == "db" and find_subcommand(words) not in STOCK
    if is_own and own_options is None:
        # Which options the application's own command has is not known before it is loaded.
        return {}, words
    end = words.index("--") if "--" in words else len(words)
    try:
        late, rest = _make_parser(own_options or _SHARED).parse_known_args(words[:end])
    except UsageError:
        if own_options is not None or command != "db":
            raise
        # It may be a switch of the subcommand's, with a name of ours.
        return {}, words
    return vars(late), [*rest, *words[end:]]


def _parse_own(line: CommandLine) -> CommandLine:
    """Read what stands behind the sidecar's own commands."""
    if line.command == "db":
        return line
    if line.command == "wait":
        return _parse_wait(line)
    if line.command == "status":
        parser = _make_own_parser("status")
        parser.add_argument("--format", choices=FORMATS, default=FORMATS[0])
        try:
            given = parser.parse_args(line.arguments)
        except UsageError as error:
            raise UsageError(
                "status: the options are --format json, --format table and -x ARGUMENT; what else "
                "stands there are revisions"
            ) from error
        return _compare_with(line, "status", given, form=given.format)
    raise UsageError(
        f"unknown command {line.command!r}; the commands are db, wait, status"
        if line.command
        else "a command is needed; the commands are db, wait, status"
    )


def _parse_wait(line: CommandLine) -> CommandLine:
    what, *arguments = line.arguments or ("",)
    if what == "database" and not arguments:
        return replace(line, command="wait database", arguments=())
    if what == "database":
        raise UsageError("wait database: it runs no env.py, and compares with no revision")
    if what != "head":
        raise UsageError("wait: say 'wait database' or 'wait head'")
    try:
        given = _make_own_parser("wait head").parse_args(arguments)
    except UsageError as error:
        raise UsageError(
            "wait head: the only option is -x ARGUMENT; what else stands there are revisions"
        ) from error
    return _compare_with(line, "wait head", given)


def _compare_with(
    line: CommandLine, command: str, given: argparse.Namespace, **more: Any
) -> CommandLine:
    x_arg, targets = tuple(given.x_arg), tuple(given.targets)
    return replace(line, command=command, arguments=(), x_arg=x_arg, targets=targets, **more)


def _make_own_parser(command: str) -> _Parser:
    parser = _Parser(prog=command, add_help=False, allow_abbrev=False)
    parser.add_argument("-x", "--x-arg", action="append", default=[])
    parser.add_argument("targets", nargs="*")
    return parser
