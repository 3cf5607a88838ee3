"""Tells what the application's own code raises from errors of the database, upon connecting.

Its listeners and its `creator` run for each connection, those of the sidecar included: they fetch a
token, or send a statement that only one kind of database knows.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import NullPool

from flask_migrate_sidecar.errors import AppError, SidecarError, UnavailableError
from flask_migrate_sidecar.log.origin import describe_origin

from .causes import NO_FILE, NO_PACKAGE
from .errors import UnusableError, find_driver_error, find_misfit, first_line, is_limit_of_process

# What a server answers to a statement, and no login can end with (PEP 249).
_OF_STATEMENTS: Final = ("ProgrammingError", "DataError", "IntegrityError", "NotSupportedError")
_HINT: Final = (
    "a listener or a creator of the application's, or of env.py, runs for every connection: mend "
    "it, or what it needs; one that fits a single kind of database has to look which it is"
)


class OurPool(NullPool):
    """Keeps no connection, and says whose code failed where one is made."""

    def connect(self) -> Any:
        """Make a connection.

        Raises:
            AppError: the application's code raised.
            UnavailableError: it could not reach something else that it needs.
        """
        try:
            return super().connect()
        except BaseException as error:
            found = find_fault(error)
            if found is None:
                raise
            raise found from error


def find_fault(error: BaseException) -> AppError | UnavailableError | None:
    """Make an error of ours of one that the application's code raised, None of any other.

    What is not reached over the network may be later, as the database may.
    """
    if isinstance(error, (SidecarError, UnusableError, KeyboardInterrupt, GeneratorExit)):
        return None
    if is_limit_of_process(error) or find_misfit(error) in (NO_FILE, NO_PACKAGE):
        return None
    answer = find_driver_error(error)
    if answer is not None and not _is_of_statement(answer):
        return None
    origin = describe_origin(error)
    if "where" not in origin:
        return None
    kind = UnavailableError if isinstance(error, OSError) else AppError
    return kind(
        "the application's code raised where a connection was made or used: "
        f"{type(error).__name__}: {first_line(error)}",
        hint=_HINT,
        **origin,
    )


def _is_of_statement(error: BaseException) -> bool:
    return any(kind.__name__ in _OF_STATEMENTS for kind in type(error).__mro__)
