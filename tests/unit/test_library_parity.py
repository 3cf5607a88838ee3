"""Alembic's command line against `flask db`, both introspected; run as a program it is a table."""

import argparse
from collections.abc import Iterator

from alembic.config import CommandLine

from flask_migrate.cli import db

# What Alembic's command line has and ours has not, each with the reason.
EXPLAINED = {
    ("", "--config"): "the repository's own alembic.ini or pyproject.toml: choose with -d",
    ("", "--version"): "flask --version; flask-migrate --version lists all packages",
}
# Ours under another name.
RENAMED = {
    ("edit", "rev"): "revision",
    ("init", "directory"): "--directory",
    ("show", "rev"): "revision",
    ("stamp", "revisions"): "revision",
}


def alembic_options() -> Iterator[tuple[str, str]]:
    """Yield command and option (its longest flag) of the installed Alembic; '' is the top."""
    parser = CommandLine().parser
    for action in parser._actions:  # noqa: SLF001 - argparse has no public way to ask
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for name, sub in action.choices.items():
                yield name, ""
                yield from ((name, longest(option)) for option in sub._actions)  # noqa: SLF001
        else:
            yield "", longest(action)


def longest(action: argparse.Action) -> str:
    """Name an option by its longest flag, or an argument by its name."""
    return max(action.option_strings, key=len, default=action.dest)


def our_options(command: str) -> set[str]:
    """Return the flags and arguments of one of our commands; '' is the group."""
    found = db if not command else db.commands.get(command.replace("_", "-"))
    params = found.params if found is not None else ()
    return {name for param in params for name in (*param.opts, param.name or "")}


def find_ours(command: str, option: str) -> str | None:
    """Say how `flask db` offers an option of Alembic's, or why it does not; None is a gap."""
    if option == "--help" or (not option and command.replace("_", "-") in db.commands):
        return "yes"
    name = RENAMED.get((command, option), option)
    if name in our_options(command):
        return "yes" if name == option else f"as {name}"
    return EXPLAINED.get((command, option))


def test_no_unexplained_gap() -> None:
    """Each command and option of the installed Alembic is in `flask db`, or it is said why not."""
    gaps = [pair for pair in alembic_options() if find_ours(*pair) is None]
    assert gaps == []


def test_explanations_are_needed() -> None:
    """No explanation is left of a gap that was closed or never was."""
    known = {*alembic_options()}
    assert {*EXPLAINED} <= known
    assert not [pair for pair in EXPLAINED if pair[1] in our_options(pair[0])]


if __name__ == "__main__":
    for command, option in alembic_options():
        if option != "--help":
            name = f"alembic {command}".strip()
            print(f"{name:24} {option:24} {find_ours(command, option) or 'GAP'}")  # noqa: T201
