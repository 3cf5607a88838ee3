"""Hides passwords, in whatever spelling and wherever in a line of the log they stand."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Final
from urllib.parse import quote, quote_plus, unquote

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from flask_migrate_sidecar.errors import describe
from flask_migrate_sidecar.settings.options import Settings

MASK: Final = "***"
# Characters of a line that is a secret of its own, where one has several.
_SHORTEST_LINE: Final = 6
# Characters of a part of a password that is hidden by itself.
_SHORTEST_PART: Final = 4
# The password of a URL in free text, up to the last @ before the next space, URL or closing quote.
_URL_PASSWORD: Final = re.compile(
    # What is a number up to a slash is a port.
    r"""(?<=://)([^\s:/@'"\[]*):(?!\d{1,5}(?:[/?#]|$))((?:(?!://|["'](?:[,;:)\]}>]|$))\S)*)@"""
)
_WORD: Final = re.compile(r"[A-Za-z]{1,11}|[0-9]{1,11}|.{1,5}", re.DOTALL)
# Variables whose value is a password; some images have switches with such names.
_PASSWORD_VARIABLE: Final = re.compile(
    # PWD alone is a shell's working directory.
    r"(PASSWORD|PASSWD|PASSPHRASE|_PASS|_PW|_PWD)$",
    re.IGNORECASE,
)
# Those whose value may as well be a path, or the name of a column or of a key.
_KEY_VARIABLE: Final = re.compile(r"(TOKEN|SECRET|_KEY)$|SECRET", re.IGNORECASE)
# What SQLAlchemy leaves out of a long parameter (`_repr_base.trunc`); it may cut a secret in two.
_LEFT_OUT: Final = re.compile(r" \.\.\. \(\d+ characters truncated\) \.\.\. ")
# Letters beside digits, or a long text: no word of anybody's.
_RANDOM: Final = re.compile(r"(?=.*[0-9])(?=.*[A-Za-z])[^\s/].{7,}|[^\s/].{19,}", re.DOTALL)
# Spaces and comments of SQL; a comment that is long hides nothing.
_GAP: Final = r"(?:\s|/\*.{0,200}?\*/|--[^\n]{0,200}\n)"
# CREATE ROLE ... PASSWORD '...', CREATE USER ... IDENTIFIED BY '...', PASSWORD('...'), and what
# Python and JSON show: 'password': '...'.
_QUOTED_PASSWORD: Final = re.compile(
    r"""(?is)(password|passwd|(?<!revision\s)identified\s+(?:with\s+\S+\s+)?(?:by|as)(?:\s+password)?)"""
    # SET PASSWORD FOR somebody = '...'
    rf"""(\\?["']?{_GAP}*(?::=|=>?|:){_GAP}*(?:[en]|u&)?|{_GAP}+(?:for\s+\S+\s*=\s*)?(?:[en]|u&)?"""
    rf"""|{_GAP}*\({_GAP}*)"""
    # One that is not closed ends with the text. A backslash escapes on MariaDB, and nothing on
    # PostgreSQL (manual, 4.1.2.1): where the two differ, the longer one.
    r"""('(?:[^'\\]|''|\\''|\\.)*(?:'|\Z)|(?<=[:=\s])"(?:[^"\\]|\\.)*"|\\(?P<q>["']).*?\\(?P=q)"""
    # Quoted by dollars (4.1.2.4).
    r"""|\$(?P<tag>\w*)\$.*?(?:\$(?P=tag)\$|\Z))"""
)
# A parameter that stands where a password does, by each of the drivers' styles.
_BOUND_PASSWORD: Final = re.compile(
    rf"(?i)(?:password|passwd|identified\s+by){_GAP}*(?:[=(]{_GAP}*)?(?:%\((\w+)\)s|:(\w+)|%s|\?|\$\d)"
)
# What a server shows of a row: PostgreSQL's DETAIL of a key or of a whole row (where the statement
# beside it names a password), and MariaDB's 1062, whose message has 512 bytes. Bounded, or to the
# end of the text: whatever a program prints goes through here.
_SHOWN_KEY: Final = re.compile(
    r"(?is)(Key \((?=[^)\n]{0,999}?(?:passw|secret|token))[^)\n]{0,999}\)=\()"
    r".*?(?=\) (?:already|is|conflicts)|\Z)"
    r"|(Duplicate entry ').{0,512}?(?=' for key '[^']{0,256}?(?:passw|secret|token))"
)
_SHOWN_ROW: Final = re.compile(r"(?s)(Failing row contains \()(.*?)(?=\)\.|\Z)")
# PostgreSQL: LINE 1: ..., and the literal at which it stopped; MariaDB: near '...' at line 1.
_QUOTATION: Final = re.compile(
    r"""(?ms)(?<=^LINE )\d+: [^\n]*|(?<=at or near ")'[^\n]*(?=")|(?<=near ').*(?=' at line \d)"""
)
# What the application calls so in the structure of its records.
_SECRET_FIELD: Final = re.compile(
    r"(?i)^(?!(?:has|is|use|uses|next|with)_)(?:.*[_\-.]|)(?:password\d*|passwd|passphrase|pass|pwd|pw"
    r"|secret|token|authorization|credential|(?:api|access|secret|private|signing|encryption)"
    r"[_\-]?key)s?$"
)
# Letters that begin no word: of an escaped line break, and of a terminal's colour, raw or escaped.
_BEGINNINGS: Final = "|".join(
    rf"(?<={text})"
    for text in (
        r"\\[nrt]",
        *(
            rf"{escape}\[{colour}m"
            for escape in (r"\x1b", r"\\x1b", r"\\u001b")
            for colour in ("", r"\d", r"\d\d", r"\d;\d\d")
        ),
    )
)
_SWITCHES: Final = frozenset(
    {
        *("", "0", "1", "yes", "no", "true", "false", "on", "off", "none", "null"),
        *("enabled", "disabled", "optional", "required", "default", "first", "last"),
    }
)
SECRET_ARGUMENTS: Final = ("password", "passwd", "sslpassword", "pwd", "ssl_key_password")
# In a URL's query, or in a connection string, where it may be quoted (PostgreSQL manual, 34.1.1).
_QUERY_PASSWORD: Final = re.compile(
    rf"(?i)({'|'.join(SECRET_ARGUMENTS)})(\s*=\s*(?=['\"])|=|\s*=\s*(?!\w*[(.,]))(?!(?:none|null|true|false)\b)"
    r"""('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^\s&;,'"(){}\[\]]+)"""
)
# An option of anybody's that is called like one.
_PASSWORD_OPTION: Final = re.compile(
    r"--?[\w-]*(?:password|passwd|passphrase|secret|token)[\w-]*(?:=(?P<value>.*))?",
    re.IGNORECASE | re.DOTALL,
)


class Secrets:
    """Texts that must not be seen, and how to hide them.

    Args:
        texts: the first of them.
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._spellings: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self.add(texts)

    def add(self, secrets: Iterable[str]) -> None:
        """Hide these texts from now on, in every spelling."""
        unknown = {text for secret in secrets for text in _spell(secret)} - self._spellings
        if not unknown:
            return
        self._spellings |= unknown
        # The longest first: one spelling can be a part of another.
        texts = sorted(self._spellings - {""}, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(_match, texts))) if texts else None

    def hide(self, value: Any) -> Any:
        """Give the value with every secret in it masked."""
        if isinstance(value, str):
            value = self._pattern.sub(MASK, value) if self._pattern else value
            return _hide_forms(self._hide_halves(value))
        if isinstance(value, dict):
            return {self.hide(key): self.hide_field(key, item) for key, item in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self.hide(item) for item in value]
        if isinstance(value, float) and not math.isfinite(value):
            return str(value)  # JSON has no NaN
        if value is None or isinstance(value, (bool, int, float)):
            return value
        return self.hide(describe(value))

    def _hide_halves(self, text: str) -> str:
        """Hide what is left of a secret where the midst of a text was left out."""
        if "characters truncated" not in text:
            return text
        found = _LEFT_OUT.findall(text)
        pieces = _LEFT_OUT.split(text)
        for number in range(len(found)):
            before, behind = pieces[number : number + 2]
            begun = max((_overlap(before, spelling) for spelling in self._spellings), default=0)
            ended = max((_overlap(spelling, behind) for spelling in self._spellings), default=0)
            pieces[number] = before[: len(before) - begun] + MASK * bool(begun)
            pieces[number + 1] = MASK * bool(ended) + behind[ended:]
        return "".join(map("".join, zip(pieces, [*found, ""], strict=True)))

    def hide_field(self, name: object, value: Any) -> Any:
        """Give a field's value with every secret in it masked, all of it where its name tells."""
        is_empty = value is None or isinstance(value, bool) or value in ("", {}, [])
        if not is_empty and _SECRET_FIELD.search(str(name)):
            return MASK
        return self.hide(value)


secrets: Final = Secrets()


@contextmanager
def separate_secrets() -> Iterator[Secrets]:
    """Let the block know no secret but its own, and forget those behind it: for tests."""
    before = dict(vars(secrets))
    vars(secrets).update(vars(Secrets()))
    try:
        yield secrets
    finally:
        vars(secrets).update(before)


def hide_settings(settings: Settings, environ: Mapping[str, str], argv: Iterable[str] = ()) -> None:
    """Mask from now on the passwords in the settings, the environment and the command line.

    The application prints at import what it was given, before its databases are known. A word of
    the command line may hold a URL and be no setting yet, or never: a mistyped option, one behind
    a command of the application's own.
    """
    words = list(argv)
    urls = [settings.database_url or "", *(text.partition("=")[2] for text in settings.bind_url)]
    urls += [text for text in environ.values() if "://" in text and "@" in text]
    # One that is mistyped is a secret as well.
    urls += [text for text in words if ":" in text and "@" in text]
    secrets.add(_find_in_options(words))
    for url in filter(None, urls):
        secrets.add(find_secrets(url))
    secrets.add(find_named(environ))


def find_named(values: Mapping[str, object]) -> set[str]:
    """List the values that are called like a secret: of variables, of an application's settings."""
    texts = dict(_flatten(values))
    named = {text for name, text in texts.items() if _PASSWORD_VARIABLE.search(name)}
    named |= {
        text
        for name, text in texts.items()
        if _KEY_VARIABLE.search(name) and _RANDOM.fullmatch(text)
    }
    # One that has several lines is printed in as many.
    named |= {line for text in named for line in text.splitlines() if len(line) >= _SHORTEST_LINE}
    return {text for text in named if text.lower() not in _SWITCHES and text[0] != "/"}


def find_configured(values: Mapping[str, object]) -> set[str]:
    """List the secrets among the settings of an application: by their names, and in what they say.

    It may print a password alone that stands in a URL, or in a connection string.
    """
    found = find_named(values)
    for _name, text in _flatten(values):
        if "://" in text and "@" in text:
            found |= find_secrets(text)
        given = [value.strip("'\"") for _argument, _sign, value in _QUERY_PASSWORD.findall(text)]
        found |= _choose_parts(given)
    return {text for text in found if text.lower() not in _SWITCHES}


def _flatten(values: Mapping[Any, object], depth: int = 3) -> Iterator[tuple[str, str]]:
    """Give the texts among values, also those in dictionaries and lists, each with its name."""
    for name, value in list(values.items()):
        if isinstance(value, str):
            yield str(name), value
        elif isinstance(value, dict) and depth:
            yield from _flatten(value, depth - 1)
        elif isinstance(value, (list, tuple)) and depth:
            for item in value:
                yield from _flatten({name: item}, depth - 1)


def _find_in_options(words: Sequence[str]) -> Iterator[str]:
    """Give the values of options that are called like a password, whoever's they are."""
    # As in `-x password=...`.
    for word in words:
        name, _, value = word.partition("=")
        yield from find_named({name: value})
    for word, following in pairwise([*words, ""]):
        found = _PASSWORD_OPTION.fullmatch(word)
        if found is not None:
            value = following if found["value"] is None else found["value"]
            if not value.startswith("-") and value.lower() not in _SWITCHES:
                yield value


def find_quotations(statement: str, message: str) -> list[str]:
    """List what a server quotes of a statement that holds a password, which it may cut anywhere.

    Args:
        statement: what it was asked.
        message: what it said.
    """
    found = _QUOTATION.findall(message) if _QUOTED_PASSWORD.search(statement) else []
    if "passw" in statement.lower():
        found += [row for _before, row in _SHOWN_ROW.findall(message)]
    return [text for text in found if len(text) >= _SHORTEST_LINE]


def find_bound(statement: str, parameters: object) -> set[str]:
    """List what a statement binds where a password stands.

    Args:
        statement: what the database was asked.
        parameters: as SQLAlchemy keeps them: one dictionary or tuple, or a list of such.
    """
    names = {name for pair in _BOUND_PASSWORD.findall(statement) for name in pair}
    found: set[str] = set()
    for bound in parameters if isinstance(parameters, list) else [parameters]:
        if isinstance(bound, Mapping):
            found |= {str(value) for name, value in bound.items() if name in names}
        elif isinstance(bound, tuple) and names:
            # By their order alone, none can be told from the others.
            found |= {value for value in bound if isinstance(value, str)}
    return {text for text in found if len(text) >= _SHORTEST_PART}


def find_secrets(url: URL | str) -> set[str]:
    """List the passwords of a URL.

    Args:
        url: a URL, or the text of one: then the spelling in the text itself is listed too.
    """
    found: set[str] = set()
    # A part of three letters tells nothing, and is one of many words.
    parts: list[str] = []
    if isinstance(url, str):
        # Greedy on purpose: a password that was not percent-encoded may hold an @ itself.
        raw = re.search(r":/{0,3}[^:/@]*:(?P<password>.*)@", url)
        found |= {raw["password"], unquote(raw["password"])} if raw else set()
        # What a parser that guesses otherwise takes for the host is a part of it.
        parts += re.split("[@/]", raw["password"]) if raw else []
        try:
            url = make_url(url)
        except (ArgumentError, ValueError):
            return {*found, *_choose_parts(parts)} - {""}
    # An @ that was not percent-encoded: SQLAlchemy takes the password to end at the first one.
    before, at, _host = str(url.host or "").rpartition("@")
    if at:
        parts += before.split("@")
        found.add(f"{url.password}@{before}")
    # What is a part in one reading is the whole in another.
    if str(url.password) not in parts or parts == [url.password]:
        found.add(str(url.password or ""))
    return {*found, *_choose_parts(parts), *_find_arguments(url)} - {""}


def _choose_parts(parts: Iterable[str]) -> set[str]:
    return {part for part in parts if len(part) >= _SHORTEST_PART}


def _find_arguments(url: URL) -> Iterator[str]:
    """Give the passwords in the query of a URL."""
    for name, value in url.query.items():
        values = (value,) if isinstance(value, str) else value
        if name.lower() in SECRET_ARGUMENTS:
            yield from values
        if name == "odbc_connect":
            for text in values:
                yield from re.findall(r"(?i)\bPWD=\{?([^;}]+)", text)


def _spell(secret: str) -> set[str]:
    """List how a secret is written: in URLs, Python, JSON, SQL, alembic.ini and libpq.

    (Alembic doubles a percent sign in its file; libpq's connection strings escape with a
    backslash: PostgreSQL manual, 34.1.1.)
    """
    # What is not UTF-8 stands in the environment all the same.
    encoded = {quote(secret, safe, errors="surrogateescape") for safe in ("/", "", " +")}
    encoded.add(quote_plus(secret, errors="surrogateescape"))
    # The first releases of SQLAlchemy 2.0 encode these three alone.
    encoded.add(re.sub(r"[:@/]", lambda found: f"%{ord(found[0]):X}", secret))
    encoded |= {re.sub("%[0-9A-F]{2}", lambda hexa: hexa[0].lower(), text) for text in encoded}
    doubled = {text.replace("%", "%%") for text in (secret, *encoded)}
    escaped = secret.replace("\\", "\\\\").replace("'", "\\'")
    shown = {repr(secret), ascii(secret), json.dumps(secret)}
    shown.add(repr(secret.encode("utf-8", "surrogateescape"))[1:])
    # A quote in a text of SQL.
    quoted = secret.replace("'", "''")
    return {secret, *encoded, *doubled, escaped, quoted, *(text[1:-1] for text in shown)}


def _overlap(first: str, second: str) -> int:
    """Give how many characters the end of a text shares with the beginning of another one."""
    longest = min(len(first), len(second))
    lengths = range(longest, _SHORTEST_PART - 1, -1)
    return next((length for length in lengths if first.endswith(second[:length])), 0)


def _hide_forms(text: str) -> str:
    """Hide what stands where a password does; looking for a word first is cheaper."""
    if "://" in text:
        text = _URL_PASSWORD.sub(rf"\1:{MASK}@", text)
    small = text.lower()
    if any(word in small for word in ("passw", "pwd", "identified")):
        text = _QUOTED_PASSWORD.sub(rf"\1\2{MASK}", text)
        text = _QUERY_PASSWORD.sub(rf"\1\2{MASK}", text)
        text = _SHOWN_ROW.sub(rf"\1{MASK}", text)
    if any(word in small for word in ("passw", "secret", "token")):
        text = _SHOWN_KEY.sub(lambda found: f"{found[1] or found[2]}{MASK}", text)
    return text


def _match(spelling: str) -> str:
    """Match a spelling anywhere, but a short or plain one only as a word of its own.

    `postgres` and `shop` are passwords as well as users, databases and parts of other words. (An
    escaped line break before it, as `repr()` shows one, begins a word too, and so does a colour.)
    """
    if not _WORD.fullmatch(spelling):
        return re.escape(spelling)
    text = re.escape(spelling)
    # The text first, for that is seldom there.
    return rf"(?={text})(?:(?<!\w)|{_BEGINNINGS}){text}(?!\w)"
