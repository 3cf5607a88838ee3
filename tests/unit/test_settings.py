"""Settings: where each comes from, how it is read, and what is told of it."""

import re
from pathlib import Path

import pytest

from flask_migrate_sidecar.errors import ConfigurationError, UsageError
from flask_migrate_sidecar.settings.options import SETTINGS, Setting, Settings
from flask_migrate_sidecar.settings.sources import find_unknown, load_settings
from flask_migrate_sidecar.settings.values import DURATIONS, parse_duration


def sample(setting: Setting) -> str:
    """Give a text that a setting takes and that is not its default."""
    if setting.name == "bind_url":
        return "NAME=url"
    for text in ("42s", "table", "ignore", "console", "debug", "3"):
        try:
            setting.parse(text)
        except ValueError:
            continue
        return text
    raise AssertionError(setting)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_each_source_sets_each_setting(setting: Setting, tmp_path: Path) -> None:
    """Every setting is read from its flag, its variables and the file that a variable names."""
    text = sample(setting)
    file = tmp_path / "value"
    # The variable of a bind has the bind's name in its own, and the URL alone as its value.
    value = text.removeprefix("NAME=") if setting.name == "bind_url" else text
    file.write_text(value + "\n", encoding="utf-8")

    read = [load_settings({setting.name: [text]}, {})]
    read += [load_settings({}, {v: value}) for v in (setting.variable, *setting.variables)]
    read += [load_settings({}, {f"{setting.variable}_FILE": str(file)})]

    expected = setting.parse(text)
    for settings in read:
        value = getattr(settings, setting.name)
        assert value == ((expected,) if setting.multiple else expected)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_default_is_what_is_shown(setting: Setting) -> None:
    """The default that help and README show is the one that is taken."""
    if isinstance(setting.default, float):
        assert parse_duration(setting.shown) == setting.default
    elif isinstance(setting.default, str):
        assert setting.shown == setting.default
    else:
        assert setting.default in (None, (), 5)


def test_flag_before_variable_before_default() -> None:
    """A flag goes before its variable, `MIGRATE_*` before other variables, all before defaults."""
    environ = {"MIGRATE_APP": "ours", "FLASK_APP": "theirs"}
    assert load_settings({"app": ["flag"]}, environ).app == "flag"
    assert load_settings({}, environ).app == "ours"
    assert load_settings({}, {"FLASK_APP": "theirs", "MIGRATE_APP": ""}).app == "theirs"
    assert load_settings({}, {}).app is None


def test_last_flag_counts() -> None:
    """Of a flag that is given twice, the last value is taken."""
    assert load_settings({"app": ["one", "two"]}, {}).app == "two"


def test_variable_and_file_exclude_each_other(tmp_path: Path) -> None:
    """A variable and its file are an error together, even if they say the same."""
    environ = {"MIGRATE_LOCK": "none", "MIGRATE_LOCK_FILE": str(tmp_path)}
    with pytest.raises(ConfigurationError, match="MIGRATE_LOCK and MIGRATE_LOCK_FILE"):
        load_settings({}, environ)


def test_file_loses_one_newline(tmp_path: Path) -> None:
    """The content of a file is the value, less one trailing newline and nothing else."""
    file = tmp_path / "url"
    file.write_text("postgresql://u:p @h/d\n\n", encoding="utf-8")
    settings = load_settings({}, {"MIGRATE_DATABASE_URL_FILE": str(file)})
    assert settings.database_url == "postgresql://u:p @h/d\n"


@pytest.mark.parametrize("content", [None, b"\xff\xfe"], ids=["missing", "binary"])
def test_unreadable_file_is_named(content: bytes | None, tmp_path: Path) -> None:
    """A file that cannot be read is named together with its variable, and its content is not."""
    file = tmp_path / "url"
    if content:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=rf"MIGRATE_DATABASE_URL_FILE: {file} cannot"):
        load_settings({}, {"MIGRATE_DATABASE_URL_FILE": str(file)})


@pytest.mark.parametrize("content", ["", "\n", "\r\n", " \n\n"])
@pytest.mark.parametrize("variable", ["MIGRATE_DATABASE_URL", "MIGRATE_DATABASE_URL__USERS"])
def test_empty_file_is_not_passed_over(variable: str, content: str, tmp_path: Path) -> None:
    """A secret without a value is not the same as none: another database would be migrated."""
    file = tmp_path / "url"
    file.write_bytes(content.encode())
    with pytest.raises(ConfigurationError, match=rf"{variable}_FILE: {file} is empty"):
        load_settings({}, {f"{variable}_FILE": str(file)})


def test_file_written_on_windows(tmp_path: Path) -> None:
    """A line that ends as it does there is no part of the value."""
    file = tmp_path / "url"
    file.write_bytes(b"postgresql://u:p@h/d\r\n")
    settings = load_settings({}, {"MIGRATE_DATABASE_URL_FILE": str(file)})
    assert settings.database_url == "postgresql://u:p@h/d"


def test_file_is_read_as_it_is(tmp_path: Path) -> None:
    """A carriage return within it is one."""
    file = tmp_path / "name"
    file.write_bytes(b"one\rtwo\n")
    assert load_settings({}, {"MIGRATE_VERSION_TABLE_FILE": str(file)}).version_table == "one\rtwo"


def test_binds_have_a_variable_each(tmp_path: Path) -> None:
    """Each bind has a flag, a variable and a file; the flag wins, spellings of a name are one."""
    file = tmp_path / "url"
    file.write_text("from-file\n", encoding="utf-8")
    environ = {
        "MIGRATE_DATABASE_URL__USERS": "from-variable",
        "MIGRATE_DATABASE_URL__READ_ONLY": "replaced",
        "MIGRATE_DATABASE_URL__LOG_FILE": str(file),
    }
    settings = load_settings({"bind_url": ["read-only=from-flag?a=b"]}, environ)
    assert settings.bind_urls() == {
        "users": "from-variable",
        "read_only": "from-flag?a=b",
        "log": "from-file",
    }


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (["users"], UsageError),
        (["=url"], UsageError),
        (["users="], UsageError),
        (["a.b=x", "A-B=y"], ConfigurationError),
    ],
)
def test_malformed_binds(texts: list[str], kind: type[Exception]) -> None:
    """A bind needs a name and a URL, and only one."""
    with pytest.raises(kind):
        load_settings({"bind_url": texts}, {}).bind_urls()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30),
        ("30s", 30),
        ("5m", 300),
        ("1h", 3600),
        ("500ms", 0.5),
        ("1m30s", 90),
        ("1h0m0.5s", 3600.5),
        ("0.5", 0.5),
        (" 1.5 s ", 1.5),
        ("0", 0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    """A duration is a number of seconds, or numbers with units in a row, as Go writes it."""
    assert parse_duration(text) == seconds


def test_forms_of_durations_are_told() -> None:
    """Every form that help and README name is taken, every unit among them."""
    told = [text for text in re.split(r"[ ,()]+", DURATIONS) if text[:1].isdigit()]
    assert {re.sub(r"[\d.]", "", text) for text in told} >= {"", "ms", "s", "m", "h"}
    assert all(parse_duration(text) for text in told)


@pytest.mark.parametrize(
    "text", ["", "soon", "-1", "5 minutes", "1e3", "5m30", "m5", "\u0663", "nan", "9000h"]
)
def test_malformed_durations(text: str) -> None:
    """Anything else is refused with an example of what is meant."""
    with pytest.raises(ValueError, match="30s"):
        parse_duration(text)


def test_malformed_value_names_its_flag() -> None:
    """A malformed value is told with the flag, and with the values that would do."""
    with pytest.raises(UsageError, match="--if-ahead: 'x': one of fail, ignore"):
        load_settings({}, {"MIGRATE_IF_AHEAD": "x"})


def test_first_of_several_mistakes_is_told() -> None:
    """Of two malformed values the one is told that stands first in `--help`."""
    first, *_, last = (s for s in SETTINGS if s.name in {"wait_timeout", "lock", "heartbeat"})
    for values in ({last.name: ["x"], first.name: ["x"]}, {first.name: ["x"], last.name: ["x"]}):
        with pytest.raises(UsageError, match=f"{first.flag}:"):
            load_settings(values, {})


def test_secrets_are_not_described() -> None:
    """Only what differs from the defaults is described, and no URL."""
    settings = Settings(database_url="postgresql://u:p@h/d", bind_url=("a=b",), lock="table")
    assert settings.describe() == {"database_url": "***", "bind_url": "***", "lock": "table"}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("MIGRATE_WAIT_TIMOUT", "MIGRATE_WAIT_TIMEOUT"),
        ("MIGRATE_DATABASE_URI", "MIGRATE_DATABASE_URL"),
        ("MIGRATE_LOCKFILE", "MIGRATE_LOCK_FILE"),
        ("MIGRATE_QWERTYUIOP", None),
        # Once in the documentation, and read by nothing.
        ("MIGRATE_BIND_URL", "MIGRATE_DATABASE_URL__NAME"),
        ("MIGRATE_BIND_URL_FILE", "MIGRATE_DATABASE_URL__NAME_FILE"),
    ],
)
def test_unknown_variable_has_a_suggestion(name: str, meant: str | None) -> None:
    """A variable that means nothing is found, with the name that is nearest."""
    assert find_unknown([name, "PATH"]) == {name: meant}


@pytest.mark.parametrize(
    "name",
    [
        *(setting.variable for setting in SETTINGS),
        "MIGRATE_LOCK_FILE",
        "MIGRATE_DATABASE_URL__USERS",
        "MIGRATE_DATABASE_URL__USERS_FILE",
        "MIGRATE_SERVICE_HOST",
        "MIGRATE_SERVICE_PORT",
        "MIGRATE_SERVICE_PORT_HTTP",
        "MIGRATE_PORT",
        "MIGRATE_PORT_5432_TCP",
        "MIGRATE_PORT_5432_TCP_ADDR",
        "MIGRATE_API_SERVICE_HOST",
        "MIGRATE_API_PORT_80_TCP_PROTO",
    ],
)
def test_known_variable_is_not_warned_of(name: str) -> None:
    """Settings and the variables that Kubernetes adds for Services are no mistakes."""
    assert find_unknown([name]) == {}


@pytest.mark.parametrize("name", ["MIGRATE_PORTION", "MIGRATE_SERVICE", "MIGRATE_LOCK_PORTS"])
def test_beginning_of_a_service_link_is_none(name: str) -> None:
    """What only begins like a variable of Kubernetes is a mistake, and is warned of."""
    assert [*find_unknown([name])] == [name]
