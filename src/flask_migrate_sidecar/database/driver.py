"""Settles which driver a database URL means, and whether that is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Final

from sqlalchemy import URL
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from flask_migrate_sidecar.errors import ConfigurationError
from flask_migrate_sidecar.log.logger import get_logger

from .url import first_argument, read_url

logger: Final = get_logger(__name__)

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
    url = read_url(text, name=name)
    try:
        dialect = url.get_dialect()
    except (NoSuchModuleError, ArgumentError):
        raise ConfigurationError(
            f"the URL of database {name!r} names an unknown dialect",
            hint="known: postgresql, mysql, mariadb, sqlite, and what SQLAlchemy dialect packages "
            "add",
            database=name,
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


def _choose_driver(url: URL, default: str, name: str) -> URL:
    """Write out the driver that a bare URL means, where there is a choice."""
    backend = url.get_backend_name()
    others = {"postgresql": _POSTGRESQL, "mysql": _MYSQL, "mariadb": _MYSQL}.get(backend)
    if others is None:
        _require(backend, (default,), given=backend)
        return url
    candidates = (default, *(driver for driver in others if driver != default))
    driver = _require(backend, candidates, given=backend)
    logger.debug("database.driver", database=name, driver=driver, dialect=backend)
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
