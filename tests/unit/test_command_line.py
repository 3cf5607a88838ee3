"""The command line: the sidecar's options, and what is the subcommand's."""

import pytest

from flask_migrate_sidecar.errors import UsageError
from flask_migrate_sidecar.settings.command_line import (
    COMMANDS,
    find_subcommand,
    parse_command_line,
)
from flask_migrate_sidecar.settings.help import format_help
from flask_migrate_sidecar.settings.options import SETTINGS


@pytest.mark.parametrize(
    "line",
    [
        "--lock none db upgrade --sql head",
        "--lock=none db upgrade --sql head",
        "db --lock none upgrade --sql head",
        "db upgrade --lock none --sql head",
        "db upgrade --sql head --lock=none",
    ],
)
def test_options_stand_anywhere(line: str) -> None:
    """An option of the sidecar's is found before the command and behind it."""
    found = parse_command_line(line.split())
    assert found.flags == {"lock": ["none"]}
    assert (found.command, found.arguments) == ("db", ("upgrade", "--sql", "head"))


def test_nothing_behind_two_dashes_is_ours() -> None:
    """What stands behind `--` is the subcommand's."""
    found = parse_command_line(["db", "count", "--", "--lock", "none"])
    assert (found.flags, found.arguments) == ({}, ("count", "--", "--lock", "none"))


def test_directory_behind_the_command_is_the_subcommands() -> None:
    """`--directory` is an option of Flask-Migrate's too: there it is its own."""
    found = parse_command_line(["--directory", "a", "db", "heads", "--directory", "b"])
    assert found.flags == {"directory": ["a"]}
    assert found.arguments == ("heads", "--directory", "b")


def test_own_options_are_left_alone() -> None:
    """An option that the subcommand has itself is its own, a switch too."""
    words = ["db", "count", "--lock", "--app", "x"]
    found = parse_command_line(words, {"--lock"})
    assert (found.flags, found.arguments) == ({"app": ["x"]}, ("count", "--lock"))


def test_missing_value_counts_once_the_subcommand_is_known() -> None:
    """An option of ours that lacks its value is an error, unless it may be the subcommand's."""
    words = ["db", "upgrade", "--lock"]
    assert parse_command_line(words).arguments == ("upgrade", "--lock")
    with pytest.raises(UsageError, match="--lock"):
        parse_command_line(words, set())


@pytest.mark.parametrize("words", [["--frob", "db"], ["--loc", "none", "db"], ["--app"]])
def test_options_before_the_command_are_ours(words: list[str]) -> None:
    """Before the command nothing but the sidecar's options may stand, unabbreviated."""
    with pytest.raises(UsageError):
        parse_command_line(words)


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["--help", "db"], ["status", "--help"]])
def test_own_help(words: list[str]) -> None:
    """`--help` before the command, and of the sidecar's own commands, is the sidecar's."""
    assert parse_command_line(words).help


def test_help_of_a_subcommand_is_the_applications() -> None:
    """`--help` behind `db` is the application's to answer."""
    found = parse_command_line(["db", "upgrade", "--help"])
    assert (found.help, found.arguments) == (False, ("upgrade", "--help"))


@pytest.mark.parametrize(
    ("words", "command", "form"),
    [
        ("wait database", "wait database", "json"),
        ("wait head --head-timeout 3", "wait head", "json"),
        ("status", "status", "json"),
        ("status --format table", "status", "table"),
        ("status --lock none --format=json", "status", "json"),
    ],
)
def test_own_commands(words: str, command: str, form: str) -> None:
    """The sidecar's own commands are read whole, before anything is loaded."""
    found = parse_command_line(words.split())
    assert (found.command, found.form) == (command, form)


@pytest.mark.parametrize("words", ["status shop@head r2", "wait head -x a=b shop@head r2"])
def test_targets(words: str) -> None:
    """What only looks compares with the revisions that are named."""
    assert parse_command_line(words.split()).targets == ("shop@head", "r2")


@pytest.mark.parametrize("words", ["status -x a=b -x c", "wait head -x a=b --x-arg=c"])
def test_arguments_for_env_py(words: str) -> None:
    """What only looks takes what `env.py` may want, as `db` and its subcommands do."""
    assert parse_command_line(words.split()).x_arg == ("a=b", "c")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "a command is needed"),
        ("frob", "unknown command 'frob'"),
        ("wait", "wait database"),
        ("wait now", "wait database"),
        ("wait database -x tenant=blue", "it runs no env.py"),
        ("wait database r1", "compares with no revision"),
        ("wait head -x", "-x ARGUMENT"),
        ("wait head --frob", "-x ARGUMENT"),
        ("status --format xml", "--format json"),
        ("status --frob", "--format json"),
    ],
)
def test_no_such_command(words: str, said: str) -> None:
    """What is no command of the sidecar's is refused before anything is loaded."""
    with pytest.raises(UsageError, match=said):
        parse_command_line(words.split())


@pytest.mark.parametrize(
    ("words", "subcommand"),
    [
        ("upgrade --sql", "upgrade"),
        ("-d upgrade history", "history"),
        ("--directory=x -x a=b seed upgrade", "seed"),
        ("--lock none seed", "seed"),
        ("--sql", None),
    ],
)
def test_subcommand_is_found(words: str, subcommand: str | None) -> None:
    """The subcommand is the first word that is no option and no option's value."""
    assert find_subcommand(words.split()) == subcommand


def test_options_of_an_own_command_wait_for_the_application() -> None:
    """An option behind a command of the application's own may be its own, until that is known."""
    words = ["db", "seed", "--lock", "main", "--app-dir", "out"]
    early = parse_command_line(words)
    assert (early.flags, early.arguments) == ({}, tuple(words[1:]))
    late = parse_command_line(words, {"--app-dir"})
    assert late.flags == {"lock": ["main"]}
    assert late.arguments == ("seed", "--app-dir", "out")


def test_help_lists_everything() -> None:
    """`--help` has every command, and every option with its variables and default."""
    text = format_help()
    assert all(command in text for command in COMMANDS)
    for setting in SETTINGS:
        variables = ", ".join((setting.variable, *setting.variables))
        assert f"{setting.flag} {setting.metavar}\n" in text
        assert f"[{variables}; default: {setting.shown}]" in text


def test_two_dashes_stay_where_they_were() -> None:
    """Without them, the subcommand would take for an option what stands behind."""
    found = parse_command_line(["db", "revision", "--", "--lock", "none"])
    assert (found.flags, found.arguments) == ({}, ("revision", "--", "--lock", "none"))
