"""The databases of one run: where they are, and how the sidecar itself connects to them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from sqlalchemy import URL, Engine, NullPool, create_engine

from .drivers import parse_url, sync_url
from .urls import hosts_and_ports, identity, is_memory, secrets, sqlite_path

__all__ = [
    "DEFAULT",
    "Database",
    "hosts_and_ports",
    "identity",
    "is_memory",
    "parse_url",
    "secrets",
    "sqlite_path",
    "sync_url",
    "timeout_arguments",
]

DEFAULT: Final = "default"

# They give rows or connections a form of the application's own (or an asynchronous one), which
# SQLAlchemy and the sidecar's few queries cannot read.
_SHAPING: Final = frozenset(
    {
        *("cursorclass", "cursor_factory", "row_factory", "server_cursor_factory"),
        *("connection_class", "connection_factory", "record_class", "factory"),
        *("async_creator_fn", "prepared_statement_name_func"),
    }
)
# Arguments of an asynchronous driver that mean the same to the synchronous one.
_SHARED: Final = frozenset(
    {
        *("host", "port", "user", "password", "db", "database", "unix_socket", "charset"),
        *("init_command", "connect_timeout", "passfile", "target_session_attrs", "uri"),
    }
)
_LIBPQ: Final = ("psycopg", "psycopg2", "psycopg2cffi")
# libpq and psycopg wait for 2 seconds at least (PostgreSQL manual, 34.1.2, connect_timeout).
_LIBPQ_LEAST: Final = 2


@dataclass(frozen=True)
class Database:
    """One database: the main one, called `default`, or a bind.

    Args:
        name: bind name, `default` for the main one.
        url: where to connect, with a driver that is installed and not asynchronous.
        connect_args: arguments of the application for its driver.
    """

    name: str
    url: URL
    connect_args: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of_app(cls, name: str, url: URL, connect_args: Mapping[str, Any] | None = None) -> Self:
        """Take over a database of the application, whose driver may be asynchronous.

        Args:
            name: bind name, `default` for the main one.
            url: the application's URL.
            connect_args: the application's arguments for the driver of that URL.

        Raises:
            ConfigurationError: no synchronous driver for it is installed.
        """
        synchronous = sync_url(url)
        given = dict(connect_args or {})
        if synchronous.drivername != url.drivername:
            given = {key: value for key, value in given.items() if key in _SHARED}
        return cls(name, synchronous, given)

    def engine(self, *, connect_timeout: float) -> Engine:
        """Make an engine without a pool: each connection of ours is opened and closed by us.

        The application's arguments win over ours, those that shape rows aside.

        Args:
            connect_timeout: the longest that one attempt may take, in seconds; drivers round it
                up, libpq to 2 s at least. Statements may run as long as they like.
        """
        arguments = self._arguments(connect_timeout, None)
        return create_engine(self.url, poolclass=NullPool, connect_args=arguments)

    def probe_engine(self, *, timeout: float) -> Engine:
        """Make an engine for a look at the server: in no transaction, not even to get acquainted.

        Args:
            timeout: the longest that connecting and each answer may take, in seconds.
        """
        options: dict[str, Any] = {}
        backend = self.url.get_backend_name()
        if backend in ("postgresql", "mysql", "mariadb"):
            options["isolation_level"] = "AUTOCOMMIT"
        if self.url.get_driver_name() in _LIBPQ:
            # SQLAlchemy looks for the type in a transaction, upon each connection.
            options["use_native_hstore"] = False
        arguments = self._arguments(timeout, timeout)
        return create_engine(self.url, poolclass=NullPool, connect_args=arguments, **options)

    def _arguments(self, connect_timeout: float, answer_timeout: float | None) -> dict[str, Any]:
        ours = timeout_arguments(self.url, connect_timeout, answer_timeout)
        in_url = {key: value for key, value in ours.items() if key not in self.url.query}
        theirs = {k: v for k, v in self.connect_args.items() if k not in _SHAPING}
        return {**in_url, **theirs}


def timeout_arguments(url: URL, seconds: float, answer: float | None = None) -> dict[str, Any]:
    """Give the driver's own arguments for time limits; none where the driver is not known.

    Args:
        url: names the driver, and how many hosts share the time.
        seconds: for connecting.
        answer: for the server's answers, None for no limit.
    """
    whole = max(1, math.ceil(seconds))
    driver = url.get_driver_name()
    if driver in _LIBPQ:
        return _libpq_arguments(url, seconds, answer)
    if driver in ("pymysql", "mysqldb", "cymysql"):
        # PyMySQL's limit on connecting ends with TCP's handshake: MySQL's own is reading.
        limits = {"connect_timeout": whole}
        if answer is not None:
            limits |= dict.fromkeys(("read_timeout", "write_timeout"), max(1, math.ceil(answer)))
        return limits
    if driver in ("pysqlite", "pg8000", "pyodbc"):
        return {"timeout": seconds if driver == "pysqlite" else whole}
    if driver in ("mysqlconnector", "mariadbconnector"):
        return {"connection_timeout" if driver == "mysqlconnector" else "connect_timeout": whole}
    return {}


def _libpq_arguments(url: URL, seconds: float, answer: float | None) -> dict[str, Any]:
    """Share the time between the hosts: libpq counts it anew for each (manual, 34.1.2)."""
    each = max(_LIBPQ_LEAST, math.ceil(seconds / len(hosts_and_ports(url))))
    if answer is None:
        return {"connect_timeout": each}
    silence = max(1, math.ceil(answer))
    return {
        "connect_timeout": each,
        "tcp_user_timeout": silence * 1000,
        "keepalives_idle": silence,
        "keepalives_interval": 1,
        "keepalives_count": 3,
    }
