"""Reads database URLs as people write them, and says which place one means.

Read with care for what a log may show: no message of this module repeats the text it was given.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from flask_migrate_sidecar.errors import ConfigurationError

_FORM_HINT: Final = (
    # A colon before the @ would be masked.
    "form: dialect+driver://USER@HOST:PORT/DATABASE, USER:PASSWORD where there is a password;"
    " percent-encode special characters in both (Python: urllib.parse.quote_plus)"
)
_HIGHEST_PORT: Final = 65535


def read_url(text: str, *, name: str) -> URL:
    """Read a database URL, whatever its driver.

    Args:
        text: the URL. It is never repeated in a message: it may hold a password.
        name: what the URL is for (`default` or the bind's name), for messages.

    Raises:
        ConfigurationError: empty, malformed, of several lines, several @, or a port that is none.
    """
    text = text.strip()
    if not text:
        raise _error(f"the URL of database {name!r} is empty", name)
    if re.search("[\ud800-\udfff]", text):
        raise _error(f"the URL of database {name!r} is not UTF-8", name)
    if re.search(r"[\x00-\x1f\x7f]", text):
        message = f"the URL of database {name!r} holds a line break or another control character"
        raise _error(message, name)
    try:
        url = make_url(text)
        ports = [url.port, *(port for _, port in hosts_and_ports(url))]
    except ArgumentError:
        raise _error(f"the URL of database {name!r} is malformed", name) from None
    except ValueError:
        # int(), for what stands behind the last colon: perhaps half a password.
        message = f"the URL of database {name!r} has a port that is not a number"
        raise _error(message, name) from None
    if text.partition("?")[0].count("@") > 1:
        # Where the password ends is a guess, and a wrong one shows the rest of it as the host.
        raise _error(f"the URL of database {name!r} has several @", name)
    if any(port is not None and not 1 <= port <= _HIGHEST_PORT for port in ports):
        message = f"the URL of database {name!r} has a port outside 1 to {_HIGHEST_PORT}"
        raise _error(message, name)
    if re.fullmatch(r"postgres(\+\w+)?", url.drivername):
        return url.set(drivername="postgresql" + url.drivername.removeprefix("postgres"))
    return url


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


def place(url: URL) -> str:
    """Name the server or file of a URL as a person would look for it."""
    if url.get_backend_name() == "sqlite":
        return ":memory:" if is_memory(url) else str(sqlite_path(url))
    socket = first_argument(url, "unix_socket")
    if socket:
        return socket
    pairs = hosts_and_ports(url)
    named = [f"{host or 'localhost'}{f':{port}' if port else ''}" for host, port in pairs]
    return ",".join(named)


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


def first_argument(url: URL, name: str) -> str:
    """Give an argument of the query, the first where it stands there several times, else ''."""
    return next(iter(_values(url, name)), "")


def _split_port(host: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"(?P<host>\[[^\]]*\]|[^:]*):(?P<port>[^:]*)", host)
    return (match["host"], _port(match["port"])) if match else (host, None)


def _port(text: str) -> int | None:
    return int(text) if text else None


def _values(url: URL, name: str) -> tuple[str, ...]:
    value = url.query.get(name, ())
    return (value,) if isinstance(value, str) else value


def _error(message: str, name: str) -> ConfigurationError:
    return ConfigurationError(message, hint=_FORM_HINT, database=name)
