"""Reads database URLs as people write them, and settles which driver they mean.

Read with care for what a log may show: no message of this module repeats the text it was given.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Final

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from .errors import ConfigurationError
from .log import get_logger
from .urls import first_argument, hosts_and_ports

log = get_logger(__name__)

_PIP: Final = {
    "psycopg": "psycopg[binary]",
    "psycopg_async": "psycopg[binary]",
    "psycopg2": "psycopg2-binary",
    "mysqldb": "mysqlclient",
    "pymysql": "PyMySQL",
    "mariadbconnector": "mariadb",
    "mysqlconnector": "mysql-connector-python",
}
_POSTGRESQL: Final = ("psycopg", "psycopg2")
_MYSQL: Final = ("mysqldb", "pymysql")
# What a synchronous connection uses where the application's own driver is asynchronous.
_SYNCHRONOUS: Final[Mapping[str, Sequence[str]]] = {
    "asyncpg": _POSTGRESQL,
    "psycopg_async": _POSTGRESQL,
    "aiomysql": _MYSQL[::-1],
    "asyncmy": _MYSQL[::-1],
    "aiosqlite": ("pysqlite",),
}
# Query arguments that only the asynchronous driver knows; the synchronous one would reject them.
_ASYNCHRONOUS_ONLY: Final = frozenset(
    {
        *("async_fallback", "prepared_statement_cache_size", "prepared_statement_name_func"),
        *("statement_cache_size", "max_cached_statement_lifetime", "max_cacheable_statement_size"),
        *("command_timeout", "timeout", "server_settings", "direct_tls", "ssl"),
        *("echo", "minsize", "maxsize", "pool_recycle", "iter_chunk_size"),
    }
)
# asyncpg's `ssl` takes libpq's sslmode names, `true` means require
# (https://magicstack.github.io/asyncpg/current/api/index.html#connection).
_SSLMODES: Final = {"true": "require", "on": "require", "1": "require", "false": "disable"}
_PERCENT_HINT: Final = (
    "form: dialect+driver://USER[:PASSWORD]@HOST:PORT/DATABASE; percent-encode special characters"
    " in user and password (Python: urllib.parse.quote_plus)"
)


def parse_url(text: str, *, name: str) -> URL:
    """Read a database URL, and settle its driver where the text leaves it open.

    Bare `postgres://` and `postgresql://` mean SQLAlchemy's own default driver if that loads, else
    the other of psycopg and psycopg2; bare `mysql://` and `mariadb://` mean PyMySQL where
    mysqlclient does not load. An asynchronous driver is left as it is, provided that a synchronous
    one stands by for the sidecar's own connections (see `sync_url`).

    Args:
        text: the URL. It is never repeated in a message: it may hold a password.
        name: what the URL is for (`default` or the bind's name), for messages.

    Raises:
        ConfigurationError: malformed, port out of range, unknown dialect, driver not installed.
    """
    url = _read(text.strip(), name)
    _check_ports(url, name)
    try:
        dialect = url.get_dialect()
    except (NoSuchModuleError, ArgumentError):
        raise _error(
            f"the URL of database {name!r} names an unknown dialect",
            "known: postgresql, mysql, mariadb, sqlite, and what SQLAlchemy dialect packages add",
            name,
        ) from None
    if "+" not in url.drivername:
        return _choose_driver(url, dialect.driver, name)
    sync_url(url)
    return url


def sync_url(url: URL) -> URL:
    """Give the same place for a synchronous driver; a URL that has one comes back as it is.

    Args:
        url: the application's URL.

    Raises:
        ConfigurationError: no driver that would do is installed.
    """
    candidates = _SYNCHRONOUS.get(url.get_driver_name())
    backend = url.get_backend_name()
    if candidates is None:
        _require(backend, (url.get_driver_name(),), given=url.drivername)
        return url
    driver = _require(backend, candidates, given=url.drivername)
    return _without_asynchronous_arguments(url).set(drivername=f"{backend}+{driver}")


def _read(text: str, name: str) -> URL:
    if not text:
        raise _error(f"the URL of database {name!r} is empty", _PERCENT_HINT, name)
    try:
        url = make_url(text)
    except ArgumentError:
        raise _error(f"the URL of database {name!r} is malformed", _PERCENT_HINT, name) from None
    except ValueError:
        # int(), for what stands behind the last colon: perhaps half a password.
        message = f"the URL of database {name!r} has a port that is not a number"
        raise _error(message, _PERCENT_HINT, name) from None
    if text.partition("?")[0].count("@") > 1:
        # Where the password ends is a guess, and a wrong one shows the rest of it as the host.
        raise _error(f"the URL of database {name!r} has several @", _PERCENT_HINT, name)
    if re.fullmatch(r"postgres(\+\w+)?", url.drivername):
        return url.set(drivername="postgresql" + url.drivername.removeprefix("postgres"))
    return url


def _check_ports(url: URL, name: str) -> None:
    try:
        ports = [url.port, *(port for _, port in hosts_and_ports(url))]
    except ValueError:
        message = f"the URL of database {name!r} has a port that is not a number"
        raise _error(message, _PERCENT_HINT, name) from None
    if any(port is not None and not 1 <= port <= 65535 for port in ports):  # noqa: PLR2004
        message = f"the URL of database {name!r} has a port outside 1 to 65535"
        raise _error(message, _PERCENT_HINT, name)


def _choose_driver(url: URL, default: str, name: str) -> URL:
    """Write out the driver that a bare URL means, where there is a choice."""
    backend = url.get_backend_name()
    others = {"postgresql": _POSTGRESQL, "mysql": _MYSQL, "mariadb": _MYSQL}.get(backend)
    if others is None:
        _require(backend, (default,), given=backend)
        return url
    candidates = (default, *(driver for driver in others if driver != default))
    driver = _require(backend, candidates, given=backend)
    log.debug("database.driver", database=name, driver=driver, dialect=backend)
    return url.set(drivername=f"{backend}+{driver}")


def _require(backend: str, candidates: Sequence[str], *, given: str) -> str:
    for driver in candidates:
        if _loads(f"{backend}+{driver}"):
            return driver
    packages = " or ".join(f"'{_PIP.get(driver, driver)}'" for driver in candidates)
    raise ConfigurationError(
        f"the database driver for {given} is not installed, or does not load",
        hint=f"pip install {packages}",
        driver=", ".join(candidates),
    )


@cache
def _loads(drivername: str) -> bool:
    """Import the driver: a compiled one may be installed and still lack its C library."""
    try:
        URL.create(drivername).get_dialect().import_dbapi()
    except (ImportError, NoSuchModuleError):
        return False
    return True


def _without_asynchronous_arguments(url: URL) -> URL:
    ssl = first_argument(url, "ssl")
    kept = url.difference_update_query(_ASYNCHRONOUS_ONLY)
    if ssl and url.get_backend_name() == "postgresql":
        return kept.update_query_dict({"sslmode": _SSLMODES.get(ssl.lower(), ssl)})
    return kept


def _error(message: str, hint: str, name: str) -> ConfigurationError:
    return ConfigurationError(message, hint=hint, database=name)
