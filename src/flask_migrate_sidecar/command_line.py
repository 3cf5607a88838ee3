"""Splits the command line into the sidecar's options and the command.

Uses argparse, because some options decide where packages, click among them, are found.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from .errors import UsageError
from .settings import SETTINGS

COMMANDS = {
    "db SUBCOMMAND [ARGS]": "run a subcommand of the application's migration commands",
    "wait database": "return once every database accepts a login and answers a query",
    "wait head": "return once every database is at the code's heads, or ahead of them",
    "status": "print what each database holds (--format json|table)",
}

# Options of the application's own subcommands that the sidecar has too: there they are theirs.
_SHARED = frozenset({"--directory"})
_OURS = frozenset({"wait", "status"})


class _Parser(argparse.ArgumentParser):
    """A parser that raises instead of printing and exiting."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


@dataclass(frozen=True)
class CommandLine:
    """What was asked for.

    Args:
        command: the first word: `db`, `wait`, `status`, or '' where there is none.
        arguments: what follows it, less the sidecar's options.
        flags: values of the sidecar's options, by name of the setting.
        help: `--help` stands before the command, or behind one of the sidecar's own.
        version: `--version` stands before the command.
        argv: all of it, as it was given.
    """

    command: str = ""
    arguments: tuple[str, ...] = ()
    flags: Mapping[str, list[str]] = field(default_factory=dict)
    help: bool = False
    version: bool = False
    argv: tuple[str, ...] = ()


def _make_parser(without: Collection[str] = ()) -> _Parser:
    parser = _Parser(
        prog="flask-migrate", add_help=False, allow_abbrev=False, argument_default=None
    )
    for setting in SETTINGS:
        if setting.flag not in without:
            parser.add_argument(
                setting.flag, action="append", dest=setting.name, metavar=setting.metavar
            )
    return parser


def parse_command_line(
    argv: Sequence[str], own_options: Collection[str] | None = None
) -> CommandLine:
    """Read the command line.

    Args:
        argv: the arguments, without the program's name.
        own_options: options that belong to the subcommand where they stand behind the command;
            None as long as the application, and so its subcommands, are not known.

    Raises:
        UsageError: an option before the command is unknown or lacks its value, or one behind it
            does that is known not to be the subcommand's.
    """
    before = _make_parser()
    before.add_argument("--help", "-h", action="store_true")
    before.add_argument("--version", action="store_true")
    before.add_argument("command", nargs=argparse.REMAINDER)
    found = vars(before.parse_args(argv))
    words: list[str] = found.pop("command")
    flags = dict(found)
    wants = {name: flags.pop(name) for name in ("help", "version")}
    end = words.index("--") if "--" in words else len(words)
    try:
        late, rest = _make_parser(own_options or _SHARED).parse_known_args(words[:end])
    except UsageError:
        if own_options is not None:
            raise
        # It may be a switch of the subcommand's, with a name of ours.
        late, rest = argparse.Namespace(), words[:end]
    for name, values in vars(late).items():
        flags[name] = [*(flags.get(name) or ()), *(values or ())]
    command, *arguments = [*rest, *words[end:]] or [""]
    given = {name: values for name, values in flags.items() if values}
    # The help of `db` and of its subcommands is the application's.
    wants["help"] |= command in _OURS and "--help" in arguments
    return CommandLine(command, tuple(arguments), given, **wants, argv=tuple(argv))


def format_help() -> str:
    """Write the help: every command, and every option with its variables and default."""
    lines = [
        "Usage: flask-migrate [OPTIONS] COMMAND [ARGS]",
        "",
        "Runs database migrations of a Flask application: waits for the databases, takes a",
        "lock, runs the command, logs JSON and ends with an exit code that says what to do.",
        "",
        "Commands:",
        *(f"  {command:<22}{text}" for command, text in COMMANDS.items()),
        "",
        "Options, each also as variable, or as a file that VARIABLE_FILE names:",
    ]
    for setting in SETTINGS:
        variables = ", ".join((setting.variable, *setting.variables))
        lines += [
            f"  {setting.flag} {setting.metavar}",
            f"      {setting.help}",
            f"      [{variables}; default: {setting.shown}]",
        ]
    return "\n".join([*lines, "  --version", "  --help", ""])
