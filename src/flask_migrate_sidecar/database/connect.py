"""The databases of one run: where they are, and how the sidecar itself connects to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self
from weakref import WeakSet

from sqlalchemy import URL, Engine, NullPool, create_engine

from .dialect import find_dialect
from .driver import sync_url

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
_OF_EVERY_DRIVER: Final = frozenset(
    {
        *("host", "port", "user", "password", "db", "database", "unix_socket", "charset"),
        *("init_command", "connect_timeout", "passfile", "target_session_attrs", "uri"),
    }
)


# The dialects of the engines that are made here, of which each has its own.
_ours: Final[WeakSet[Any]] = WeakSet()


def is_ours(dialect: Any) -> bool:
    """Tell whether a dialect is that of an engine of our own, which connects where it should."""
    return dialect in _ours


@dataclass(frozen=True)
class Database:
    """One database: the main one, called `default`, or a bind.

    Args:
        name: bind name, `default` for the main one.
        url: where to connect, with a driver that is installed and not asynchronous.
        connect_args: arguments of the application for its driver.
        is_redirected: the application's URL is another one.
    """

    name: str
    url: URL
    connect_args: Mapping[str, Any] = field(default_factory=dict, repr=False)
    is_redirected: bool = False

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
            given = {key: value for key, value in given.items() if key in _OF_EVERY_DRIVER}
        return cls(name, synchronous, given)

    def engine(self, *, connect_timeout: float) -> Engine:
        """Make an engine without a pool: each connection of ours is opened and closed by us.

        The application's arguments win over ours, those that shape rows aside.

        Args:
            connect_timeout: the longest that one attempt may take, in seconds; drivers round it
                up, libpq to 2 s at least. Statements may run as long as they like.
        """
        arguments = self._arguments(connect_timeout, None)
        return self._make_engine(arguments)

    def probe_engine(self, *, timeout: float) -> Engine:
        """Make an engine for a look at the server: in no transaction, not even to get acquainted.

        Args:
            timeout: the longest that connecting and each answer may take, in seconds.
        """
        options = find_dialect(self.url.get_backend_name()).probe_options(self.url)
        arguments = self._arguments(timeout, timeout)
        return self._make_engine(arguments, **options)

    def _make_engine(self, arguments: dict[str, Any], **options: Any) -> Engine:
        engine = create_engine(self.url, poolclass=NullPool, connect_args=arguments, **options)
        _ours.add(engine.dialect)
        return engine

    def _arguments(self, connect_timeout: float, answer_timeout: float | None) -> dict[str, Any]:
        dialect = find_dialect(self.url.get_backend_name())
        ours = dialect.arguments(self.url, connect_timeout, answer_timeout)
        in_url = {key: value for key, value in ours.items() if key not in self.url.query}
        theirs = {k: v for k, v in self.connect_args.items() if k not in _SHAPING}
        return {**in_url, **theirs}
