"""What a database URL says: which place it means, and what in it is secret."""

from __future__ import annotations

import getpass
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote, quote_plus, unquote

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

_PORTS: Final = {"postgresql": 5432, "mysql": 3306, "mssql": 1433, "oracle": 1521}
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_SECRET_ARGUMENTS: Final = frozenset(
    {"password", "passwd", "sslpassword", "pwd", "ssl_key_password"}
)


def is_memory(url: URL) -> bool:
    """Tell whether the URL means a SQLite database that lives in memory only."""
    if url.get_backend_name() != "sqlite":
        return False
    database = url.database or ":memory:"
    return database in (":memory:", "file::memory:") or (
        database.startswith("file:")
        and (first_argument(url, "mode") == "memory" or "mode=memory" in database)
    )


def sqlite_path(url: URL) -> Path:
    """Give the absolute path of a SQLite file, out of a `file:` URI too."""
    database = url.database or ""
    if database.startswith("file:"):
        # https://www.sqlite.org/uri.html: an authority may be empty or localhost.
        path = unquote(database.removeprefix("file:").partition("?")[0])
        database = re.sub(r"^//(localhost)?(?=/)", "", path)
    return Path(database).absolute()


def identity(url: URL) -> tuple[str, str]:
    """Name server and database so that two spellings of one place compare equal.

    Decided without connecting: names of the loopback interface, default ports, drivers, the case
    of a host name and relative or linked SQLite paths do not count. Unequal does not prove that
    the places differ: only the servers could say (two names of one host).

    Args:
        url: any URL.

    Returns:
        Server and database, fit for a dictionary's key and for sorting.
    """
    backend = url.get_backend_name()
    if backend == "sqlite":
        if is_memory(url):
            return "sqlite", ":memory:"
        return "sqlite", os.path.realpath(sqlite_path(url))
    backend = "mysql" if backend == "mariadb" else backend
    hosts = ",".join(sorted(_hosts(url, backend)))
    database = first_argument(url, "dbname") or first_argument(url, "database") or url.database
    if backend == "postgresql":
        # libpq: the database's name defaults to the user's, that to the operating system's.
        database = database or os.environ.get("PGDATABASE") or url.username or _system_user()
    return f"{backend}://{hosts}", database or ""


def secrets(url: URL | str) -> set[str]:
    """List the URL's passwords in every spelling that a message could show.

    Args:
        url: a URL, or the text of one: then the spelling in the text itself is listed too.
    """
    found: set[str] = set()
    if isinstance(url, str):
        # Greedy on purpose: a password that was not percent-encoded may hold an @ itself.
        raw = re.search(r"://[^:/@]*:(?P<password>.*)@", url)
        found |= {raw["password"], unquote(raw["password"])} if raw else set()
        # What a parser that guesses otherwise takes for the host is a part of it.
        found |= set(re.split("[@/]", raw["password"])) if raw else set()
        try:
            url = make_url(url)
        except (ArgumentError, ValueError):
            return {spelling for password in found for spelling in _spellings(password)}
    found |= {str(url.password or "")} | set(_secret_arguments(url))
    return {spelling for password in found if password for spelling in _spellings(password)}


def hosts_and_ports(url: URL) -> list[tuple[str, int | None]]:
    """List the hosts of a URL; libpq takes several, and reads them from the query as well."""
    given = _values(url, "host")
    ports = [_port(port) for value in _values(url, "port") for port in value.split(",")]
    if not given:
        return [(url.host or "", url.port or (ports[0] if ports else None))]
    pairs = [_split_port(host) for value in given for host in value.split(",")]
    common = ports * len(pairs) if len(ports) == 1 else ports
    fallback = [*common, *[url.port] * len(pairs)]
    return [(host, port or fallback[i]) for i, (host, port) in enumerate(pairs)]


def _hosts(url: URL, backend: str) -> Iterator[str]:
    socket = first_argument(url, "unix_socket")
    if socket:
        yield f"unix:{os.path.realpath(socket)}"
        return
    for given, port in hosts_and_ports(url):
        yield f"{_host(given, backend)}:{port or _default_port(backend)}"


def _host(given: str, backend: str) -> str:
    host = given.strip("[]").lower().rstrip(".")
    if not host and backend == "postgresql":
        # libpq without a host: PGHOST, else a Unix socket in a folder set when it was built.
        host = os.environ.get("PGHOST", "").lower() or "socket"
    if given.startswith("/"):
        return f"unix:{os.path.realpath(given)}"
    return "localhost" if host in _LOOPBACK or not host else host


def _default_port(backend: str) -> str:
    set_outside = os.environ.get("PGPORT") if backend == "postgresql" else None
    return set_outside or str(_PORTS.get(backend, ""))


def _split_port(host: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"(?P<host>\[[^\]]*\]|[^:]*):(?P<port>[^:]*)", host)
    return (match["host"], _port(match["port"])) if match else (host, None)


def _port(text: str) -> int | None:
    return int(text) if text else None


def first_argument(url: URL, name: str) -> str:
    """Give an argument of the query, the first where it stands there several times, else ''."""
    return next(iter(_values(url, name)), "")


def _values(url: URL, name: str) -> tuple[str, ...]:
    value = url.query.get(name, ())
    return (value,) if isinstance(value, str) else value


def _secret_arguments(url: URL) -> Iterator[str]:
    for name in url.query:
        if name.lower() in _SECRET_ARGUMENTS:
            yield from _values(url, name)
    for text in _values(url, "odbc_connect"):
        yield from re.findall(r"(?i)\bPWD=\{?([^;}]+)", text)


def _spellings(password: str) -> set[str]:
    encoded = {quote(password), quote(password, safe=""), quote(password, safe=" +")}
    encoded.add(quote_plus(password))
    # The first releases of SQLAlchemy 2.0 encode these three alone.
    encoded.add(re.sub(r"[:@/]", lambda found: f"%{ord(found[0]):X}", password))
    encoded |= {re.sub("%[0-9A-F]{2}", lambda hexa: hexa[0].lower(), text) for text in encoded}
    # As Python shows a string inside an exception's arguments, and as JSON writes it.
    quoted = {repr(password)[1:-1], json.dumps(password)[1:-1]}
    return {password, *encoded, *quoted}


def _system_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""  # a container's user often has no name
