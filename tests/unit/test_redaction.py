"""No password is seen in a line of the log, and what is none stays as it was."""

import random
import string

import pytest
from sqlalchemy import make_url

from flask_migrate_sidecar.log.redaction import MASK, Secrets, find_named, find_secrets

ORDINARY = (
    "database shop_owner is not available: connection refused at 127.0.0.1:5432",
    'password authentication failed for user "shop_owner"',
    '{"url": "https://example.org/a:b", "mail": "somebody@example.org"}',
    '{"a":"postgresql://host/db","mail":"somebody@example.org"}',
    "http://127.0.0.1:5000/login and somebody@example.org",
    "CREATE TABLE password_reset (token VARCHAR(20), password_hash TEXT)",
    "ALTER TABLE users ADD COLUMN password VARCHAR(20) NOT NULL",
    "Running upgrade a1 -> b2, add the column 'password'",
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
        "mysql://u:Zq77Abc@h/x, mysql://u:Zq77Abc@h/y",
        '["postgresql://u:Zq77Abc@h/x","postgresql://v:Zq77Abc@h/y"]',
    ],
)
def test_password_that_nobody_told_of(text: str) -> None:
    """SQL, connection strings, URLs and dictionaries show where a password stands."""
    shown = Secrets().hide(text)
    assert "Zq77" not in shown
    assert MASK in shown


def test_two_urls_are_two() -> None:
    """What stands between two URLs stays."""
    text = "from postgresql://u:secret@one/db to postgresql://v:secret@two/db"
    shown = Secrets().hide(text)
    assert shown == f"from postgresql://u:{MASK}@one/db to postgresql://v:{MASK}@two/db"


def test_field_is_called_like_a_secret() -> None:
    """Whatever the application keeps under such a name is not shown."""
    event = {"user": "ann", "password": "x", "deep": [{"api_key": "y", "tokens": 5}]}
    assert Secrets().hide(event) == {
        "user": "ann",
        "password": MASK,
        "deep": [{"api_key": MASK, "tokens": 5}],
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
    ],
)
def test_variables_that_hold_none(name: str, value: str) -> None:
    """A path, a column and a switch are no secrets."""
    assert find_named({name: value}) == set()


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
