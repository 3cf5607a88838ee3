"""Leads connections to another place than the application's, and makes sure that they are there.

A listener of the application's own may lead them elsewhere again, and an engine with a `creator`
cannot be led at all: so each connection of a database that was redirected is asked where it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, event

from flask_migrate_sidecar.errors import ConfigurationError

from .connect import Database, is_ours
from .dialect import find_dialect
from .url import place

# Arguments of the drivers that say where a database is: the URL that was given is the only one to.
_PLACE: Final = frozenset(
    {
        *("host", "hostaddr", "port", "dbname", "database", "db", "service", "servicefile"),
        *("unix_socket", "named_pipe", "read_default_file", "read_default_group"),
    }
)
_PASSWORD: Final = ("password", "passwd")
# These are the application's where the URL that was given has none.
_LOGIN: Final = {"user": ("user",), **dict.fromkeys(_PASSWORD, _PASSWORD)}
# Behind a load balancer a second connection may come to another server than the first.
_TRIES: Final = 5


@dataclass(frozen=True)
class Move:
    """Where the application has a database, and where the run reaches it.

    Args:
        url: the application's.
        target: the one to connect to; the same where it was not redirected.
        engine: the application's own, by whose dialect SQLAlchemy knows it.
    """

    url: URL
    target: URL
    engine: Any


def lead_connections(moves: Sequence[Move]) -> None:
    """Let every engine of the application's, and those that `env.py` makes itself, go elsewhere.

    The parameters are exchanged where SQLAlchemy hands them to the driver, so that the
    application's engine options stay. An engine of the application's is known by its dialect, of
    which each has its own; another one by its parameters.
    """

    @event.listens_for(Engine, "do_connect")
    def redirect(dialect: Any, _record: Any, args: list[Any], parameters: dict[str, Any]) -> None:
        if is_ours(dialect):
            return
        move = _find_own(moves, dialect) or _find_alike(moves, dialect, args, parameters)
        if move is None or move.target == move.url:
            return
        _, old = dialect.create_connect_args(move.url)
        args[:], new = dialect.create_connect_args(move.target)
        stays = remove_place({k: v for k, v in parameters.items() if k not in old}, new)
        parameters.clear()
        parameters.update({**new, **stays})


def remove_place(arguments: Mapping[str, Any], given: Iterable[str]) -> dict[str, Any]:
    """Leave out of a driver's arguments what would lead away from the URL that was given.

    Args:
        arguments: the application's.
        given: names of the arguments that the URL gives.
    """
    dropped = _PLACE.union(*(_LOGIN.get(name, ()) for name in given))
    return {name: value for name, value in arguments.items() if name not in dropped}


def check_place(connection: Connection, database: Database, connect_timeout: float) -> None:
    """Make sure that a connection of the application's is where it was led.

    Args:
        connection: it; no transaction is left open that was not.
        database: where it should be.
        connect_timeout: seconds that one attempt to connect there may take.

    Raises:
        ConfigurationError: it is elsewhere.
    """
    dialect, was_begun = find_dialect(database.url.get_backend_name()), connection.in_transaction()
    found = dialect.identify(connection)
    if not was_begun:
        connection.rollback()
    engine = database.engine(connect_timeout=connect_timeout)
    for _ in range(_TRIES):
        with engine.connect() as ours:
            wanted = dialect.identify(ours)
        if wanted == found:
            return
    raise ConfigurationError(
        f"the application connects to another database than the one that was given for "
        f"{database.name!r} at {place(database.url)}: {_tell_apart(found, wanted)}",
        hint="its engine has a creator, or a listener or arguments that say where to connect: let "
        "those follow a setting of the application's, and leave the URL out",
        database=database.name,
    )


def _tell_apart(found: Sequence[str], wanted: Sequence[str]) -> str:
    pairs = [pair for pair in zip(found, wanted, strict=False) if pair[0] != pair[1]]
    return ", ".join(f"{there!r} is not {here!r}" for there, here in pairs)


def _find_own(moves: Iterable[Move], dialect: Any) -> Move | None:
    return next((move for move in moves if move.engine.dialect is dialect), None)


def _find_alike(
    moves: Iterable[Move], dialect: Any, args: Sequence[Any], parameters: Mapping[str, Any]
) -> Move | None:
    """Find the database that an engine of somebody else's means.

    Raises:
        ConfigurationError: it may be one of several, of which only some were redirected.
    """
    found = [move for move in moves if _is_alike(move.url, dialect, args, parameters)]
    if len({move.target for move in found}) > 1:
        raise ConfigurationError(
            "several databases of the application have one URL, and not all were redirected: "
            "which of them env.py means cannot be told",
            hint="let env.py take the application's own engines, or give a URL for all of them",
        )
    return found[0] if found else None


def _is_alike(url: URL, dialect: Any, args: Sequence[Any], parameters: Mapping[str, Any]) -> bool:
    if dialect.name != url.get_backend_name():
        return False
    own_args, own = dialect.create_connect_args(url)
    return list(own_args) == list(args) and own.items() <= parameters.items()
