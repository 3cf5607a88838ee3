"""No password is seen in a line of the log, and what is none stays as it was."""

import random
import string

import pytest
from sqlalchemy import make_url
from sqlalchemy.exc import StatementError

from flask_migrate_sidecar.log.redaction import (
    MASK,
    Secrets,
    find_bound,
    find_configured,
    find_named,
    find_quotations,
    find_secrets,
    hide_settings,
    separate_secrets,
)
from flask_migrate_sidecar.settings.options import Settings

ORDINARY = (
    "database shop_owner is not available: connection refused at 127.0.0.1:5432",
    'password authentication failed for user "shop_owner"',
    '{"url": "https://example.org/a:b", "mail": "somebody@example.org"}',
    '{"a":"postgresql://host/db","mail":"somebody@example.org"}',
    "http://127.0.0.1:5000/login and somebody@example.org",
    "CREATE TABLE password_reset (token VARCHAR(20), password_hash TEXT)",
    "ALTER TABLE users ADD COLUMN password VARCHAR(20) NOT NULL",
    "Running upgrade a1 -> b2, add the column 'password'",
    "UPDATE u SET password = lower(password), x = 1",
    "UPDATE u SET password = NULL WHERE users.password = legacy.password",
    "login(password=None, x=1)",
    "http://api:80/users/@me and http://h:80/path?mail=a@b.de",
    "http://[::1]:80/@x",
    "SELECT password FROM u WHERE note = 'a' AND mail = 'b'",
    "COMMENT ON COLUMN u.password IS 'what it is for'",
    "DETAIL:  Key (mail)=(a@b.de) already exists.",
    "DETAIL:  Failing row contains (1, bob, null).",
    "(1062, \"Duplicate entry 'bob' for key 'users.name'\")",
)


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_stays(text: str) -> None:
    """What only looks like it holds a password is left alone."""
    assert Secrets(["hunter2"]).hide(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "CREATE ROLE app LOGIN PASSWORD 'Zq77Abc'",
        "create user x identified by 'Zq77Abc'",
        "CREATE USER x IDENTIFIED BY PASSWORD '*Zq77Abc'",
        "SET PASSWORD = PASSWORD('Zq77Abc')",
        "ALTER ROLE app PASSWORD 'it''s Zq77Abc'",
        '{"password": "Zq77Abc"}',
        "{'passwd': 'Zq77Abc'}",
        "postgresql://u:it'sZq77Abc@host/db",
        'postgresql://u:a"Zq77Abc@host/db',
        "postgresql://u:p@ss@Zq77Abc@127.0.0.1/db",
        "host=h password='a Zq77Abc' dbname=d",
        "CREATE ROLE x PASSWORD E'Zq77Abc'",
        "CREATE USER x IDENTIFIED WITH mysql_native_password BY 'Zq77Abc'",
        "MASTER_PASSWORD='Zq77Abc'",
        "db_password=Zq77Abc",
        "{'db_password': 'Zq77Abc'}",
        "password => 'Zq77Abc'",
        "password := 'Zq77Abc'",
        r"op.execute('CREATE ROLE x PASSWORD \'Zq77Abc\'')",
        "mysql://u:Zq77Abc@h/x, mysql://u:Zq77Abc@h/y",
        '["postgresql://u:Zq77Abc@h/x","postgresql://v:Zq77Abc@h/y"]',
        "CREATE ROLE x PASSWORD $$Zq77Abc$$",
        "CREATE ROLE x PASSWORD $tag$it's $$ Zq77Abc$tag$ LOGIN",
        "CREATE ROLE x PASSWORD $$Zq77Abc",
        "CREATE ROLE x PASSWORD U&'\\0041Zq77Abc'",
        "CREATE ROLE x PASSWORD /* of the shop */ 'Zq77Abc'",
        "CREATE ROLE x PASSWORD -- of the shop\n 'Zq77Abc'",
        "SET PASSWORD FOR 'u'@'%' = 'Zq77Abc'",
        "SET PASSWORD FOR u = PASSWORD('Zq77Abc')",
        r'"create user x identified by \"Zq77Abc\""',
        "DETAIL:  Key (api_token)=(Zq77Abc) already exists.",
        "DETAIL:  Key (id, password)=(1, Zq77(a)bc) already exists.",
        "(1062, \"Duplicate entry 'Zq77Abc' for key 'users.password'\")",
        "DETAIL:  Failing row contains (1, Zq77Abc, null).\n[SQL: INSERT INTO u (id, password)]",
    ],
)
def test_password_that_nobody_told_of(text: str) -> None:
    """SQL, connection strings, URLs and dictionaries show where a password stands."""
    shown = Secrets().hide(text)
    assert "Zq77" not in shown
    assert MASK in shown


@pytest.mark.parametrize(
    ("statement", "parameters", "found"),
    [
        ("ALTER ROLE x PASSWORD %(p)s", {"p": "Zq77Abc", "q": "other"}, {"Zq77Abc"}),
        ("ALTER ROLE x PASSWORD :p", [{"p": "Zq77Abc"}, {"p": "Zq78Abc"}], {"Zq77Abc", "Zq78Abc"}),
        ("create user x identified by %s", ("Zq77Abc", 3), {"Zq77Abc"}),
        ("SET PASSWORD = PASSWORD(?)", ("Zq77Abc",), {"Zq77Abc"}),
        ("UPDATE u SET password = %(h)s WHERE id = %(i)s", {"h": "Zq77Abc", "i": 1}, {"Zq77Abc"}),
        ("SELECT password FROM u WHERE id = %(i)s", {"i": "ordinary"}, set()),
        ("SELECT 1", None, set()),
    ],
)
def test_parameter_that_stands_where_a_password_does(
    statement: str, parameters: object, found: set[str]
) -> None:
    """What a failed statement has bound is in SQLAlchemy's message, under any name."""
    assert find_bound(statement, parameters) == found


def test_row_that_a_server_shows() -> None:
    """Of a row with a password nothing is shown, wherever the message stands without its SQL."""
    message = "null value in column\nDETAIL:  Failing row contains (1, Zq77Abc, null)."
    found = find_quotations("INSERT INTO u (id, Password, x) VALUES (1, $1, NULL)", message)
    assert "Zq77" not in Secrets(found).hide(message)
    assert find_quotations("INSERT INTO u (id, name, x) VALUES (1, $1, NULL)", message) == []


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "text",
    [
        *("(" + "token" * 120_000, "secret " + "Duplicate entry '" * 40_000),
        *("passw " + "Failing row contains (" * 40_000, "token " + "Key (" * 40_000),
        *("password" + " " * 200_000 + "x", "password/*" * 20_000, "password $a$" * 20_000),
    ],
    ids=["token", "duplicate", "row", "key", "spaces", "comment", "dollars"],
)
def test_whatever_is_printed_is_looked_through_in_time(text: str) -> None:
    """What a program prints stops no run, however it begins what a form would end."""
    assert Secrets().hide(text)


def test_two_urls_are_two() -> None:
    """What stands between two URLs stays."""
    text = "from postgresql://u:secret@one/db to postgresql://v:secret@two/db"
    shown = Secrets().hide(text)
    assert shown == f"from postgresql://u:{MASK}@one/db to postgresql://v:{MASK}@two/db"


def test_field_is_called_like_a_secret() -> None:
    """Whatever the application keeps under such a name is not shown."""
    event = {"user": "ann", "password": "x", "deep": [{"api_key": "y", "token_count": 5}]}
    assert Secrets().hide(event) == {
        "user": "ann",
        "password": MASK,
        "deep": [{"api_key": MASK, "token_count": 5}],
    }


def test_parts_of_a_url_that_was_not_encoded() -> None:
    """An @ in a password makes a host of its rest, for every parser."""
    url = make_url("postgresql://u:p@ss@Zq77Abc@127.0.0.1/db")
    secrets = Secrets(find_secrets(url))
    assert "Zq77" not in secrets.hide(f"at {url.host} as u:{url.password}")


@pytest.mark.parametrize(
    "name",
    ["DB_PASSWORD", "APP_PW", "PGPASSWORD", "MY_PASS", "API_TOKEN", "AWS_SECRET_ACCESS_KEY"],
)
def test_variables_that_hold_one(name: str) -> None:
    """A variable that is called like a secret holds one."""
    assert find_named({name: "Zq77Abc9"}) == {"Zq77Abc9"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MONKEY", "Zq77Abc9"),
        ("SORT_KEY", "id"),
        ("SSH_KEY", "/home/app/.ssh/key"),
        ("DB_SECRET_FILE", "/run/secrets/db"),
        ("COMPASS", "Zq77Abc9"),
        ("USE_PASSWORD", "true"),
        ("PARTITION_KEY", "customers"),
        ("JWT_IDENTITY_KEY", "upgrade_step"),
        ("CACHE_KEY", "alembic_version"),
        ("SECRETS_BACKEND", "kubernetes"),
        ("S3_KEY", "uploads/img"),
        ("REQUIRE_PASSWORD", "optional"),
        ("FOO_PWD", "/app"),
    ],
)
def test_variables_that_hold_none(name: str, value: str) -> None:
    """A path, a column and a switch are no secrets."""
    assert find_named({name: value}) == set()


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("redis://:Zq77Abc@cache/0", {"Zq77Abc"}),
        (["redis://:Zq77Abc@one/0", "redis://:Zq78Abc@two/0"], {"Zq77Abc", "Zq78Abc"}),
        ({"default": {"url": "amqp://u:Zq77Abc@mq"}}, {"Zq77Abc"}),
        ("host=h user=u password='Zq77 Abc' dbname=d", {"Zq77 Abc"}),
        (("http://example.org", "a@example.org"), set()),
        ("bcrypt", set()),
        (3, set()),
    ],
)
def test_secrets_in_what_settings_say(value: object, found: set[str]) -> None:
    """A password in a setting's URL or connection string is one that may be printed alone."""
    assert find_configured({"WHATEVER": value}) == found


def test_settings_that_stand_in_others() -> None:
    """An application keeps its settings in dictionaries too."""
    assert find_named({"MAIL": {"smtp": {"MAIL_PASSWORD": "Zq77Abc9"}}}) == {"Zq77Abc9"}


@pytest.mark.parametrize(
    "words",
    [
        ["-x", "db_password=Zq77Abc9"],
        ["-xpassword=Zq77Abc9"],
        ["--x-arg=pw=a", "password=Zq77Abc9"],
    ],
)
def test_argument_that_is_called_like_one(words: list[str]) -> None:
    """What env.py is given with -x can be a password."""
    with separate_secrets() as secrets:
        hide_settings(Settings(), {}, words)
        assert "Zq77" not in secrets.hide("connecting with Zq77Abc9")


@pytest.mark.parametrize("colour", ["\x1b[m", "\x1b[1m", "\x1b[31m", "\x1b[1;31m"])
@pytest.mark.parametrize("spell", [str, repr, ascii])
def test_colour_begins_a_word(colour: str, spell: "type[str]") -> None:
    """A plain word behind a terminal's colour is still the word."""
    assert "hunter" not in Secrets(["hunter"]).hide(spell(f"{colour}hunter\x1b[0m"))


def test_generated_passwords() -> None:
    """Of thousands of passwords none is seen in any spelling that Python, JSON or URLs have."""
    choose = random.Random(20261128)  # noqa: S311 - no secret of anybody's
    letters = string.printable.strip() + " äß€\u2713"
    for _ in range(3_000):
        secret = "".join(choose.choices(letters, k=choose.randint(6, 60))).strip() or "hunter2"
        secrets = Secrets([secret])
        for text in (
            secret,
            repr(secret),
            ascii(secret),
            repr(secret.encode()),
            f"({secret})",
            f"value={secret}; next",
        ):
            assert secret not in secrets.hide(text)
            assert MASK in secrets.hide(text)


@pytest.mark.parametrize(
    "name",
    [
        *("password", "DB_PASSWORD", "new_password2", "pwd", "app_pw", "secret_key", "x-api-key"),
        *("aws_secret_access_key", "JWT_SECRET_KEY", "authorization", "signing_key", "api_token"),
    ],
)
@pytest.mark.parametrize("value", ["Zq77", 12345678, ["Zq77"], {"a": "Zq77"}])
def test_names_of_secrets(name: str, value: object) -> None:
    """Whatever the form of what a secret's name stands for, it is not shown."""
    assert Secrets().hide_field(name, value) == MASK


@pytest.mark.parametrize("name", ["next_page_token", "has_password", "use_secret", "token_count"])
def test_names_of_no_secrets(name: str) -> None:
    """Names that only speak of one are left alone."""
    assert Secrets().hide_field(name, "page-2") == "page-2"


def test_lines_of_a_password() -> None:
    """A password of several lines is printed, and hidden, line by line."""
    found = find_named({"APP_PASSWORD": "Zq77AbcXyz\nsecond9line"})
    secrets = Secrets(found)
    assert secrets.hide("Zq77AbcXyz") == secrets.hide("second9line") == MASK


@pytest.mark.parametrize(
    ("secret", "text"),
    [
        ("it's Zq77Abc", "INSERT INTO secret VALUES ('it''s Zq77Abc')"),
        # In PostgreSQL's texts a backslash escapes nothing (manual, 4.1.2.1).
        ("x\\'Zq77Abc", "ALTER ROLE app PASSWORD 'x\\''Zq77Abc'"),
    ],
)
def test_quote_of_a_password_in_sql(secret: str, text: str) -> None:
    """A password that SQL spells with a doubled quote is hidden as any other."""
    assert "Zq77" not in Secrets([secret]).hide(text)


@pytest.mark.parametrize("at", range(130, 160))
def test_secret_that_is_cut_in_two(at: int) -> None:
    """Of a parameter whose midst SQLAlchemy leaves out, no part of a secret is left."""
    secret = "Zq77AbcXyz9Qw4"
    # What is left out is in the midst of the first, and of the second.
    value = f"{'x' * at}{secret}{'y' * 300}{secret}{'z' * at}"
    shown = str(StatementError("failed", "INSERT", {"name": value}, None))
    assert "characters truncated" in shown
    hidden = Secrets([secret]).hide(shown)
    parts = {secret[n : n + 4] for n in range(len(secret) - 3)}
    assert not [part for part in parts if part in hidden]
    assert hidden.count("x") >= min(at, 140)
    assert "characters truncated" in hidden


def test_short_parts_of_a_password_are_words() -> None:
    """A letter between two @ is no secret: it would be hidden everywhere."""
    secrets = Secrets(find_secrets("postgresql://u:a@Zq77Abc/b@127.0.0.1/db"))
    text = "https://example.org/a:b and b/a"
    assert secrets.hide(text) == text
    assert "Zq77" not in secrets.hide("Zq77Abc")
