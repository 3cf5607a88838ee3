"""Records of the standard library, warnings and errors of threads: events of ours, all of them.

Records are taken where loggers hand them to handlers, so whatever handlers an application has
(`dictConfig()`, the `fileConfig()` of a stock `env.py`), the lines keep our form.
"""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from typing import Any

from .events import LEVELS, THEIRS
from .logger import get_logger, quiet
from .structure import place, read_record


def take_over_logging(level: str) -> None:
    """Make every record of the standard library, and every warning, an event of ours.

    Applications may set levels; their handlers for the console are passed over, because their
    lines would not be ours in form. Handlers for files and for services are called as ever.
    """
    logger = get_logger("")

    def emit(record: logging.LogRecord) -> None:
        below = [name for name, number in LEVELS.items() if number <= record.levelno]
        method = below[-1] if below else "debug"
        fields: dict[str, Any] = {"logger": record.name, "record_time": record.created}
        if record.exc_info and record.exc_info[0] is not None:
            fields["exc_info"] = record.exc_info
        text, theirs = read_record(record)
        getattr(logger, method)(text, **fields, **{THEIRS: place(theirs)})

    def call_handlers(self: logging.Logger, record: logging.LogRecord) -> None:
        if not _is_noise(record):
            emit(record)
        here: logging.Logger | None = self
        while here is not None:
            for handler in here.handlers:
                if record.levelno >= handler.level and not _writes_to_console(handler):
                    handler.handle(record)
            here = here.parent if here.propagate else None

    logging.Logger.callHandlers = call_handlers  # type: ignore[method-assign]
    # dictConfig and fileConfig disable the loggers that they do not name.
    logging.Logger.disabled = property(lambda _: False, lambda _, __: None)  # type: ignore[assignment]
    logging.getLogger().setLevel(max(LEVELS[level], logging.INFO))
    logging.getLogger("alembic").setLevel(LEVELS[level])
    _take_warnings()
    _take_thread_errors()


def _is_noise(record: logging.LogRecord) -> bool:
    """Pass over Alembic's lines on each start-up that tell nothing about the run."""
    return record.levelno <= logging.INFO and (
        record.name == "alembic.runtime.plugins" or quiet.is_set()
    )


def _writes_to_console(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.StreamHandler) and not isinstance(
        handler, logging.FileHandler
    )


def _take_warnings() -> None:
    logger = get_logger("")

    def show(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any
    ) -> None:
        told = {"category": category.__name__, "filename": filename, "lineno": lineno}
        logger.warning(str(message), logger="py.warnings", **told)

    warnings.showwarning = show  # type: ignore[assignment]


def _take_thread_errors() -> None:
    logger = get_logger("threading")

    def log_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and args.exc_type is not SystemExit:
            name = args.thread.name if args.thread else None
            logger.error("exception in a thread", exc_info=args.exc_value, thread=name)

    def log_unraisable(args: sys.UnraisableHookArgs) -> None:
        # Python's own words for it differ from release to release.
        about = {"object": repr(args.object), "reason": args.err_msg}
        told = {name: value for name, value in about.items() if value is not None}
        logger.error("exception ignored", exc_info=args.exc_value, **told)

    threading.excepthook = log_thread
    sys.unraisablehook = log_unraisable
