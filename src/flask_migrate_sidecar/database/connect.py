"""The databases of one run: where they are, and how the sidecar itself connects to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Self
from weakref import WeakSet

from sqlalchemy import URL, Engine, create_engine, event

from .dialect import find_dialect
from .driver import sync_url
from .keepalive import keep_alive
from .own_code import OurPool
from .passwords import learn_parameters, learn_password, learn_refused, note_parameters

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


Parameters = dict[str, Any]

# What our own connecting through an engine of the application's adds to its parameters.
_amend: Final[ContextVar[Callable[[Parameters], None] | None]] = ContextVar("amend", default=None)
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
        source: the application's engine, where connections of ours can come from it: then they are
            made as it makes its own, whatever options, listeners or `creator` it has.
    """

    name: str
    url: URL
    connect_args: Mapping[str, Any] = field(default_factory=dict, repr=False)
    is_redirected: bool = False
    source: Engine | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of_app(
        cls,
        name: str,
        url: URL,
        connect_args: Mapping[str, Any] | None = None,
        source: Engine | None = None,
    ) -> Self:
        """Take over a database of the application, whose driver may be asynchronous.

        Args:
            name: bind name, `default` for the main one.
            url: the application's URL.
            connect_args: the application's arguments for the driver of that URL.
            source: the application's engine, None where the URL is not its own.

        Raises:
            ConfigurationError: no synchronous driver for it is installed.
        """
        synchronous = sync_url(url)
        given = dict(connect_args or {})
        if synchronous.drivername != url.drivername:
            given = {key: value for key, value in given.items() if key in _OF_EVERY_DRIVER}
        # A look at a SQLite file must not create it, and its lock is beside what the URL names.
        # psycopg has one name for both: an asynchronous engine wants a loop around it.
        if source is not None and (source.dialect.is_async or url.get_backend_name() == "sqlite"):
            source = None
        return cls(name, synchronous, given, source=source)

    def engine(
        self,
        *,
        connect_timeout: float,
        defaults: Mapping[str, Any] | None = None,
        ours: Mapping[str, Any] | None = None,
    ) -> Engine:
        """Make an engine without a pool: each connection of ours is opened and closed by us.

        The application's arguments win over ours, those that shape rows aside.

        Args:
            connect_timeout: the longest that one attempt may take, in seconds; drivers round it
                up, libpq to 2 s at least. Statements may run as long as they like.
            defaults: arguments of the driver where the application has none.
            ours: arguments of the driver whatever the application has.
        """
        limits = self._limits(connect_timeout, None)
        return self._make_engine({**limits, **(defaults or {})}, ours or {})

    def probe_engine(self, *, timeout: float) -> Engine:
        """Make an engine for a look at the server: in no transaction, not even to get acquainted.

        Args:
            timeout: the longest that connecting and each answer may take, in seconds.
        """
        options = find_dialect(self.url.get_backend_name()).probe_options(self.url)
        return self._make_engine(self._limits(timeout, timeout), {}, **options)

    def _make_engine(
        self, defaults: Mapping[str, Any], ours: Mapping[str, Any], **options: Any
    ) -> Engine:
        def amend(parameters: Parameters) -> None:
            kept = {k: v for k, v in parameters.items() if k not in _SHAPING}
            parameters.clear()
            parameters.update({**defaults, **kept, **ours})

        if self.source is not None:
            options["creator"] = partial(_borrow, self.source, amend)
        else:
            options["connect_args"] = dict(self.connect_args)
        engine = create_engine(self.url, poolclass=OurPool, **options)
        event.listen(engine, "do_connect", lambda _dialect, _record, _args, given: amend(given))
        _ours.add(engine.dialect)
        return engine

    def _limits(self, connect_timeout: float, answer_timeout: float | None) -> dict[str, Any]:
        dialect = find_dialect(self.url.get_backend_name())
        limits = dialect.arguments(self.url, connect_timeout, answer_timeout)
        return {key: value for key, value in limits.items() if key not in self.url.query}


def limit_connecting(seconds: float) -> None:
    """Let nothing connect for longer than that, where it has not been said how long.

    The application's engines and those that `env.py` makes are meant: a path that has been cut
    since would hold each for minutes (Linux, `tcp_syn_retries`; tcp(7)).

    Args:
        seconds: for one attempt; drivers round it up.
    """

    @event.listens_for(Engine, "do_connect")
    def limit(dialect: Any, _record: Any, _args: Any, parameters: Parameters) -> None:
        # SQLite's only limit is how long it waits for another one's lock.
        if is_ours(dialect) or dialect.name == "sqlite":
            return
        hosts = {"host": str(parameters["host"])} if "host" in parameters else {}
        url = URL.create(f"{dialect.name}+{dialect.driver}", query=hosts)
        for name, value in find_dialect(dialect.name).arguments(url, seconds).items():
            parameters.setdefault(name, value)
        if dialect.driver == "pymysql":
            parameters.setdefault("read_timeout", _OfHandshake(seconds))

    @event.listens_for(Engine, "connect")
    def unlimit(connection: Any, _record: Any) -> None:
        if isinstance(getattr(connection, "_read_timeout", None), _OfHandshake):
            connection._read_timeout = None  # noqa: SLF001 - statements take their time


class _OfHandshake(float):
    """Seconds for an answer until the login is done: PyMySQL's limit for connecting ends before."""


def _borrow(source: Engine, amend: Callable[[Parameters], None]) -> Any:
    """Make a driver's connection as an engine of the application's does; it is ours to close.

    Its pool is left alone, which may have one place only, or a connection that is dead by now.
    """
    before: list[tuple[Parameters, dict[str, Any]]] = []

    def amend_once(parameters: Parameters) -> None:
        before.append((parameters, dict(parameters)))
        amend(parameters)

    token = _amend.set(amend_once)
    try:
        borrowed = source.pool.recreate().connect()
    finally:
        _amend.reset(token)
        # A pool that is asked directly tells no listener of an error.
        learn_parameters()
        # The first releases of SQLAlchemy 2.0 hand out the engine's own, not a copy: what limits
        # our look would limit the migration.
        for parameters, kept in before:
            parameters.clear()
            parameters.update(kept)
    driver = borrowed.dbapi_connection
    borrowed.detach()
    return driver


@event.listens_for(Engine, "do_connect")
def _amend_borrowed(_dialect: Any, _record: Any, _args: Any, parameters: Parameters) -> None:
    amend = _amend.get()
    if amend is not None:
        amend(parameters)


# Those of the application, with which it migrates, are kept alive as well.
event.listen(Engine, "connect", keep_alive)
event.listen(Engine, "do_connect", note_parameters)
event.listen(Engine, "connect", learn_password)
event.listen(Engine, "handle_error", learn_refused)
