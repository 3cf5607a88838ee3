"""The README, `--help` and the code tell of the same commands, settings and exit codes."""

import re
from pathlib import Path

from flask_migrate_sidecar import errors
from flask_migrate_sidecar.settings.command_line import COMMANDS
from flask_migrate_sidecar.settings.help import format_help
from flask_migrate_sidecar.settings.options import SETTINGS
from flask_migrate_sidecar.settings.values import DURATIONS

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """Give the cells of the first table below a heading."""
    section = README.partition(f"### {heading}\n")[2]
    table = re.search(r"^\|.*?(?=\n\n)", section, re.MULTILINE | re.DOTALL)
    assert table is not None
    lines = table.group().splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_settings_are_those_of_the_code() -> None:
    """Each setting has one row: flag, variables, default and meaning as declared."""
    declared = [
        [
            f"`{setting.flag} {setting.metavar}`",
            ", ".join(f"`{name}`" for name in (setting.variable, *setting.variables)),
            setting.shown,
            setting.help,
        ]
        for setting in SETTINGS
    ]
    assert rows("Settings") == declared


def test_forms_of_durations_are_told_alike() -> None:
    """The README tells the forms of a duration in the words of `--help`."""
    assert f"A DURATION is {DURATIONS}." in " ".join(README.split())
    assert f"A DURATION is {DURATIONS}." in format_help()


def test_exit_codes_are_those_of_the_errors() -> None:
    """Each class of error has one row: its code, its name and whether to run again."""
    classes: list[type[errors.SidecarError]] = [errors.SidecarError]
    classes += errors.SidecarError.__subclasses__()
    declared = [[str(c.exit_code), c.name, c.retry] for c in classes]
    written = [[code, name, retry] for code, name, _, retry in rows("Exit codes")]
    assert written[0][:2] == ["0", "ok"]
    assert written[1:-1] == declared
    assert written[-1][0] == "129, 130, 131, 143"


def test_help_names_everything() -> None:
    """`--help` has every command, flag, variable and default."""
    text = format_help()
    for command in COMMANDS:
        assert command in text
        assert f"flask-migrate {command}" in README.replace("\\|", "|") or command == "status"
    for setting in SETTINGS:
        assert f"{setting.flag} {setting.metavar}" in text
        assert setting.variable in text
        assert f"default: {setting.shown}]" in text
