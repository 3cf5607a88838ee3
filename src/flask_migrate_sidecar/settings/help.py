"""The help of `flask-migrate` itself; that of `db` and its subcommands is the application's."""

from __future__ import annotations

from .command_line import COMMANDS
from .options import SETTINGS
from .values import DURATIONS


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
    return "\n".join([*lines, "  --version", "  --help", "", f"A DURATION is {DURATIONS}.", ""])
