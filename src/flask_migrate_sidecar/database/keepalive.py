"""Lets both ends of a connection notice that the other one is gone, whichever driver made it.

Where a node vanishes or a path is cut, nobody sends a word: a statement that waits for its answer
would do so for ever, and a server keeps the locks of a client that is gone for two hours (Linux,
`tcp_keepalive_time`; tcp(7)).
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from operator import attrgetter
from typing import Any, Final

# Seconds of silence before the first question, between two, and how many may go unanswered.
IDLE: Final = 15
INTERVAL: Final = 5
COUNT: Final = 3
# Milliseconds that what was sent may go unacknowledged.
USER_TIMEOUT: Final = 20_000

# Where drivers have their socket: psycopg, psycopg2 and mysqlclient, PyMySQL, asyncpg, aiomysql.
_DESCRIPTORS: Final = (
    "fileno",
    "_sock.fileno",
    "_transport._sock.fileno",
    "_writer.transport._sock.fileno",
)


def keep_alive(connection: Any, _record: object = None) -> None:
    """Let the kernel ask for signs of life where the application has not said otherwise.

    Args:
        connection: a driver's connection, or SQLAlchemy's adapter of an asynchronous one.
    """
    descriptor = _find_descriptor(connection)
    if descriptor is None or not hasattr(socket, "TCP_KEEPIDLE"):
        return
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as link:
        if link.family not in (socket.AF_INET, socket.AF_INET6):
            return
        link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        with socket.socket(link.family, socket.SOCK_STREAM) as fresh:
            for option, value in (
                (socket.TCP_KEEPIDLE, IDLE),
                (socket.TCP_KEEPINTVL, INTERVAL),
                (socket.TCP_KEEPCNT, COUNT),
                (socket.TCP_USER_TIMEOUT, USER_TIMEOUT),
            ):
                default = fresh.getsockopt(socket.IPPROTO_TCP, option)
                if link.getsockopt(socket.IPPROTO_TCP, option) == default:
                    link.setsockopt(socket.IPPROTO_TCP, option, value)


def _find_descriptor(connection: Any) -> int | None:
    """Find the socket: each driver keeps it elsewhere, and one of a file has none."""
    driver = getattr(connection, "driver_connection", connection)
    for path in _DESCRIPTORS:
        # What it has not, or what is closed already.
        with suppress(Exception):
            return int(attrgetter(path)(driver)())
    return None
