"""Learns the passwords that connections are made with: the log hides them.

A listener of the application's fetches a token for each connection, and a `creator` has its own
from anywhere; neither stands in a setting.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar
from operator import attrgetter
from typing import Any, Final

from sqlalchemy.engine import ExceptionContext

from flask_migrate_sidecar.log.redaction import SECRET_ARGUMENTS, find_configured, secrets

# Where drivers keep it: psycopg and psycopg2, PyMySQL.
_PASSWORDS: Final = ("info.password", "password")
# Of the attempt that runs: the very dictionary, which listeners that come later change.
_parameters: Final[ContextVar[Mapping[str, Any] | None]] = ContextVar("parameters", default=None)


def note_parameters(_dialect: Any, _record: Any, _args: Any, parameters: Mapping[str, Any]) -> None:
    """Keep in mind what a connection is about to be made with (`DialectEvents.do_connect`)."""
    _parameters.set(parameters)


def learn_password(connection: Any, _record: object = None) -> None:
    """Hide what a connection was made with (`PoolEvents.connect`)."""
    driver = getattr(connection, "driver_connection", connection)
    for path in _PASSWORDS:
        # What it has not.
        with suppress(Exception):
            _hide(attrgetter(path)(driver))
    learn_parameters()


def learn_refused(context: ExceptionContext) -> None:
    """Hide what no connection could be made with (`DialectEvents.handle_error`)."""
    if context.connection is None:
        learn_parameters()


def learn_parameters() -> None:
    """Hide what the last attempt was made with, however it has ended."""
    parameters = _parameters.get()
    if parameters is not None:
        _parameters.set(None)
        secrets.add(find_configured(parameters))
        for name, value in list(parameters.items()):
            if name.lower() in SECRET_ARGUMENTS:
                _hide(value)


def _hide(password: object) -> None:
    """Hide a password whatever it looks like: that it is one is known."""
    text = password.decode(errors="replace") if isinstance(password, bytes) else password
    if isinstance(text, str) and text:
        secrets.add([text])
