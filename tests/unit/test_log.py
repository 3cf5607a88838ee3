"""The log: the form of its lines, and what is hidden in them."""

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from sqlalchemy import make_url

from flask_migrate_sidecar.log import logger as log
from flask_migrate_sidecar.log.redaction import (
    Secrets,
    find_secrets,
    hide_settings,
    separate_secrets,
)
from flask_migrate_sidecar.settings.options import Settings


class Streams:
    """Stands for the captured streams: keeps the lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.terminal = False

    def write_log(self, line: str) -> None:
        """Keep the line."""
        self.lines.append(line)

    def drain(self) -> None:
        """Have nothing captured."""

    def is_terminal(self) -> bool:
        """Tell what the test wants."""
        return self.terminal

    @property
    def events(self) -> list[dict[str, Any]]:
        """The lines, read as JSON."""
        return [json.loads(line) for line in self.lines]


@pytest.fixture
def streams() -> Iterator[Streams]:
    """Return streams that a log of this test alone writes to."""
    streams = Streams()
    with log.separate_log():
        log.configure_log(streams, form="json", level="info")
        yield streams


@pytest.fixture
def secrets() -> Iterator[Secrets]:
    """Return a collection of secrets for this test alone."""
    with separate_secrets() as secrets:
        yield secrets


def test_order_of_a_line(streams: Streams) -> None:
    """A line begins with timestamp, level, event and logger."""
    log.get_logger("here").warning("a.b", x=1)
    [line] = streams.events
    assert list(line) == ["timestamp", "level", "event", "logger", "x"]
    assert (line["level"], line["event"], line["logger"], line["x"]) == (
        "warning",
        "a.b",
        "here",
        1,
    )
    assert line["timestamp"].endswith("Z")


def test_level_filters(streams: Streams) -> None:
    """What is less severe than the level is not logged."""
    logger = log.get_logger("here")
    logger.debug("low")
    logger.info("high")
    assert [line["event"] for line in streams.events] == ["high"]


def test_fields_bound_everywhere(streams: Streams) -> None:
    """A field that is bound everywhere is on every later line; a line's own value wins."""
    log.bind_everywhere(command="upgrade")
    log.get_logger("here").info("a")
    log.get_logger("here").info("b", command="own")
    assert [line["command"] for line in streams.events] == ["upgrade", "own"]


def test_nothing_behind_the_last_line(streams: Streams) -> None:
    """Once the log is closed, nothing is written."""
    log.close_log()
    log.get_logger("here").info("late")
    assert streams.lines == []


def test_values_that_json_has_not(streams: Streams) -> None:
    """NaN, sets, objects and objects without a text become something that JSON has."""

    class Silent:
        def __str__(self) -> str:
            raise RuntimeError

    values = {"nan": float("nan"), "set": {1}, "object": Silent(), "path": logging.INFO}
    log.get_logger("here").info("a", **values)
    [line] = streams.events
    assert {key: line[key] for key in values} == {
        "nan": "nan",
        "set": [1],
        "object": "<Silent without a text>",
        "path": 20,
    }


@pytest.mark.timeout(30)
@pytest.mark.parametrize("shape", ["itself", "each other", "during each other"])
def test_exceptions_that_come_of_each_other(streams: Streams, shape: str) -> None:
    """A chain of exceptions that leads back to itself is told once, and the run goes on."""
    first, second = raised(ValueError("first")), raised(TypeError("second"))
    if shape == "itself":
        first.__cause__ = first
    elif shape == "each other":
        first.__cause__, second.__cause__ = second, first
    else:
        first.__context__, second.__context__ = second, first
    log.get_logger("here").error("a", exc_info=first)
    [line] = streams.events
    told = ["ValueError"] if shape == "itself" else ["ValueError", "TypeError"]
    assert [one["exc_type"] for one in line["exception"]] == told


def raised(error: Exception) -> Exception:
    """Give an exception that has been raised: others have no traceback to tell."""
    with pytest.raises(type(error)) as caught:
        raise error
    return caught.value


def test_steps_on_a_console(streams: Streams) -> None:
    """For people the step stands before the event, and no brace opens the line."""
    log.configure_log(streams, form="console", level="info")
    log.get_logger("here").info("migration.applied", step=3, steps=12)
    assert "[3/12] migration.applied" in streams.lines[0]


@pytest.mark.parametrize(
    ("form", "terminal", "is_json"),
    [("auto", False, True), ("auto", True, False), ("json", True, True), ("console", False, False)],
)
def test_form_of_the_log(streams: Streams, form: str, terminal: bool, is_json: bool) -> None:
    """Lines are for people on a terminal and JSON elsewhere, unless the form was given."""
    streams.terminal = terminal
    log.configure_log(streams, form=form, level="info")
    log.get_logger("here").info("a")
    assert streams.lines[0].startswith("{") is is_json


@pytest.mark.parametrize(
    "text",
    [
        "p%w/o'rd \"x",
        "p%25w%2Fo%27rd%20%22x",
        "p%25w/o%27rd%20%22x",
        "p%25w%2Fo%27rd+%22x",
        "p%%25w%%2Fo%%27rd%%20%%22x",
        "p%w/o\\'rd \"x",
        repr("p%w/o'rd \"x"),
    ],
)
def test_spellings_of_a_secret(secrets: Secrets, text: str) -> None:
    """A secret is hidden raw, percent-encoded, as Python shows it, in alembic.ini and libpq."""
    secrets.add(["p%w/o'rd \"x"])
    assert secrets.hide(f"a{text}b").strip("ab'\"") == "***"


@pytest.mark.parametrize("spell", [repr, json.dumps])
def test_secret_with_a_control_character(secrets: Secrets, spell: Callable[[str], str]) -> None:
    """Python and JSON write such a character each in its own way."""
    secrets.add(["bell\a-ring!"])
    assert secrets.hide(spell("bell\a-ring!")).strip("'\"") == "***"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://user:pw@host/db", "postgresql://user:***@host/db"),
        ("x://u:p@w@h/d?a=b", "x://u:***@h/d?a=b"),
        ("host=h password=pw dbname=d", "host=h password=*** dbname=d"),
        ("x://h/d?user=u&password=pw&a=b", "x://h/d?user=u&password=***&a=b"),
        ("https://host/path?to=a@b", "https://host/path?to=a@b"),
        ("nothing here", "nothing here"),
    ],
)
def test_forms_of_an_unknown_password(secrets: Secrets, text: str, shown: str) -> None:
    """A password that was never declared is hidden where its place tells what it is."""
    assert secrets.hide(text) == shown


@pytest.mark.parametrize(
    ("secret", "text", "shown"),
    [
        (
            "shop",
            "shop shopping workshop shop_owner a/shop/b",
            "*** shopping workshop shop_owner a/***/b",
        ),
        ("postgres", "postgresql+psycopg://postgres", "postgresql+psycopg://***"),
        ("1", "step 1 of 11, 1s", "step *** of 11, 1s"),
        ("shop", "'a\\nshop'", "'a\\n***'"),
        ("S3cret!word", "xS3cret!wordx", "x***x"),
    ],
)
def test_plain_secrets_are_words(secrets: Secrets, secret: str, text: str, shown: str) -> None:
    """A short or plain secret is hidden where it is a word of its own, another one anywhere."""
    secrets.add([secret])
    assert secrets.hide(text) == shown


def test_longer_spelling_goes_first(secrets: Secrets) -> None:
    """A secret that begins another one leaves no rest of it."""
    secrets.add(["abc!def", "abc!def-ghi"])
    assert secrets.hide("abc!def-ghi abc!def") == "*** ***"


def test_frame_of_a_line_is_never_hidden(streams: Streams, secrets: Secrets) -> None:
    """A password that is a word of ours changes no level, no logger and no event of ours."""
    secrets.add(["info", "database", "flask_migrate_sidecar"])
    log.get_logger("flask_migrate_sidecar.wait").info("database.ready", text="info, database")
    [line] = streams.events
    assert (line["level"], line["event"]) == ("info", "database.ready")
    assert line["logger"] == "flask_migrate_sidecar.wait"
    assert line["text"] == "***, ***"


def test_records_are_hidden_in(streams: Streams, secrets: Secrets) -> None:
    """The message of somebody else's record is hidden in, though it is the event."""
    secrets.add(["hunter2"])
    log.get_logger("shop").info("hunter2 was here", nested=[{"hunter2": ("a hunter2",)}])
    [line] = streams.events
    assert (line["event"], line["nested"]) == ("*** was here", [{"***": ["a ***"]}])


def test_environment_tells_secrets(secrets: Secrets) -> None:
    """Passwords of the settings and of the environment are known before the app prints them."""
    settings = Settings(database_url="x://u:f1rst-one@h/d", bind_url=("a=x://u:s3cond-one@h/d",))
    environ = {
        "DATABASE_URL": "postgresql://u:th1rd-one@h/d",
        "PGPASSWORD": "f0urth-one",
        "MYSQL_ALLOW_EMPTY_PASSWORD": "yes",
        "HOME": "/root",
    }
    hide_settings(settings, environ)
    text = "f1rst-one s3cond-one th1rd-one f0urth-one yes /root"
    assert secrets.hide(text) == "*** *** *** *** yes /root"


PASSWORD = "p@ss/w%rd +'\"\u00fc"


@pytest.mark.parametrize(
    "encode",
    [
        str,
        quote,
        quote_plus,
        lambda text: quote(text, safe=""),
        lambda text: quote(text, safe="").lower(),
        lambda text: repr(text)[1:-1],
        lambda text: json.dumps(text)[1:-1],
        lambda text: text.replace("%", "%%"),
    ],
    ids=["raw", "quote", "plus", "all", "lower", "repr", "json", "ini"],
)
def test_password_of_a_url_is_hidden_in_each_spelling(
    secrets: Secrets, encode: Callable[[str], str]
) -> None:
    """However a message writes the password of a URL, it is not seen."""
    url = make_url(f"postgresql+psycopg://u:{quote(PASSWORD, safe='')}@h/d")
    secrets.add(find_secrets(url))
    assert secrets.hide(f"<{encode(PASSWORD)}>") == "<***>"
    rendered = url.render_as_string(hide_password=False)
    assert secrets.hide(rendered) == "postgresql+psycopg://u:***@h/d"


def test_password_is_known_as_the_text_writes_it() -> None:
    """Needless or lower-case percent signs, and an @ left as it is, are spellings too."""
    assert {"%73ecret", "secret"} <= find_secrets("postgresql://u:%73ecret@h/d")
    assert {"a%2fb", "a/b"} <= find_secrets("postgresql://u:a%2fb@h/d")
    assert "a@b" in find_secrets("postgresql://u:a@b@h/d")
    assert "a/b" in find_secrets("postgresql://u:a/b@h:x/d")


def test_secret_arguments_of_the_query_are_known() -> None:
    """A password may stand behind the question mark."""
    url = make_url("postgresql:///d?password=one&passwd=two&sslpassword=three&sslmode=require")
    assert find_secrets(url) == {"one", "two", "three"}
    odbc = make_url("mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BUID%3Du%3BPWD%3Dfour%3B")
    assert find_secrets(odbc) == {"four"}


def test_url_without_password_has_no_secret() -> None:
    """Nothing is masked where there is nothing to hide: an empty text would match everywhere."""
    assert find_secrets(make_url("postgresql://u@h/d")) == set()
    assert find_secrets("postgresql://u:@h/d") == set()


def test_raw_text_is_a_spelling_whatever_else_it_holds() -> None:
    """A log may repeat the text of a URL, needless percent signs and raw @ together."""
    assert "%73a@b" in find_secrets("postgresql://u:%73a@b@h/d")
