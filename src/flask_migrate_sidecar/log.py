"""The log: every line is one JSON object (or one console line), whatever the application does.

Loggers are bound to our own processors, not to structlog's global configuration, and all records
of the standard library are taken where loggers hand them to handlers. So neither
`structlog.configure()`, `dictConfig()` nor `fileConfig()` changes the form.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import structlog

from .masking import describe, secrets

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger, Processor

    from .streams import Streams

Event = MutableMapping[str, Any]

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_LAST = frozenset({"command.finished", "command.failed"})
_PLACE = {"pod": "POD_NAME", "namespace": "POD_NAMESPACE", "node": "NODE_NAME"}


class _Sink:
    """Where finished lines go; before the set-up it is where structlog sends its own."""

    def __init__(self) -> None:
        self.processors: list[Processor] = []
        self.context: dict[str, Any] = {}
        self.drain: Callable[[], None] = lambda: None
        self.report_last: Callable[[Event], None] = lambda _: None
        self.level = LEVELS["info"]
        self.write: Callable[[str], None] | None = None

    def process(self, _logger: object, method: str, event: Event) -> str:
        """Turn an event into a line."""
        if not self.processors:
            getattr(structlog.get_logger(), method)(**event)
            raise structlog.DropEvent
        level = LEVELS["error" if method == "exception" else method]
        is_silent = level < self.level
        # Whatever the level, the last event is reported elsewhere too.
        if self.write is None or (is_silent and event.get("event") not in _LAST):
            raise structlog.DropEvent
        # What was printed before has an earlier time, and comes first.
        self.drain()
        result: Any = {**self.context, **event}
        for processor in self.processors:
            result = processor(None, method, result)
        if is_silent:
            raise structlog.DropEvent
        return cast("str", result)

    def __getattr__(self, name: str) -> Callable[[str], None]:
        """Write the line, whatever the level is called."""
        if name not in LEVELS:
            raise AttributeError(name)
        return self.write_line

    def write_line(self, line: str) -> None:
        if self.write is not None:
            self.write(line)


_sink = _Sink()


def get_logger(name: str) -> FilteringBoundLogger:
    """Give a logger for one of our modules."""
    return cast(
        "FilteringBoundLogger",
        structlog.wrap_logger(
            _sink,
            processors=[_sink.process],
            wrapper_class=structlog.make_filtering_bound_logger(0),
            context_class=dict,
        ).bind(logger=name),
    )


def configure_log(streams: Streams, *, form: str, level: str) -> None:
    """Set up the log.

    Args:
        streams: where lines go.
        form: `json`, `console`, or `auto` for console on a terminal and JSON elsewhere.
        level: least severe level that is logged.
    """
    console = form == "console" or (form == "auto" and streams.is_terminal())
    _sink.processors = [
        _add_level,
        _add_timestamp,
        structlog.processors.ExceptionRenderer(_render_exception),
        _mask,
        _order,
        _report_last,
    ]
    if console:
        _sink.processors += [_add_progress, _make_console(colors=streams.is_terminal())]
    else:
        _sink.processors.append(structlog.processors.JSONRenderer(default=str))
    _sink.level = LEVELS[level]
    _sink.drain = streams.drain
    _sink.write = streams.write_log


def bind_everywhere(**fields: Any) -> None:
    """Add fields to every line from now on, those of other threads and of user code too.

    structlog's context variables are the application's to clear, and each thread has its own.
    """
    _sink.context |= fields


def bind_place(environ: Mapping[str, str]) -> None:
    """Add to every line where it was written, as far as Kubernetes' downward API told us."""
    bind_everywhere(**{key: environ[name] for key, name in _PLACE.items() if environ.get(name)})


def report_last_event(report: Callable[[Event], None]) -> None:
    """Hand the last event, its secrets masked, to a function before it is written."""
    _sink.report_last = report


def close_log() -> None:
    """Write nothing more: the last line was the last."""
    _sink.write = None


def log_output(stream: str, text: str) -> None:
    """Log a line that user code printed."""
    if _sink.write is not None:
        _output.info("output", stream=stream, text=text)


_output = get_logger("output")


def _add_level(_logger: object, method: str, event: Event) -> Event:
    event["level"] = event.pop("record_level", None) or method.replace("exception", "error")
    return event


def _add_timestamp(_logger: object, _method: str, event: Event) -> Event:
    moment = event.pop("record_time", None) or time.time()
    text = datetime.fromtimestamp(moment, UTC).isoformat(timespec="microseconds")
    event["timestamp"] = text.replace("+00:00", "Z")
    return event


_transform_exception = structlog.tracebacks.ExceptionDictTransformer(
    show_locals=False, max_frames=30
)


def _render_exception(exc_info: Any) -> list[dict[str, Any]]:
    return _transform_exception(exc_info)


def _mask(_logger: object, _method: str, event: Event) -> Event:
    return {
        key: value if key in _NO_SECRET or _is_own(key, event) else secrets.hide(value)
        for key, value in event.items()
    }


# A password can be a word like `info` or `database`: what no user wrote stays readable.
_NO_SECRET = frozenset({"timestamp", "level", "logger"})


def _is_own(key: str, event: Event) -> bool:
    """Tell whether it is the name of an event of ours."""
    logger = str(event.get("logger"))
    return key == "event" and (logger == "output" or logger.partition(".")[0] == __package__)


def _order(_logger: object, _method: str, event: Event) -> Event:
    """Put what every line has first, where the eye looks for it."""
    first = {key: event[key] for key in ("timestamp", "level", "event", "logger") if key in event}
    return {**first, **event}


def _report_last(_logger: object, _method: str, event: Event) -> Event:
    if event["event"] in _LAST and _is_own("event", event):
        _sink.report_last(event)
    return event


def _add_progress(_logger: object, _method: str, event: Event) -> Event:
    if "step" in event and "steps" in event:
        event["event"] = f"[{event.pop('step')}/{event.pop('steps')}] {event['event']}"
    return event


def _make_console(*, colors: bool) -> Processor:
    renderer = structlog.dev.ConsoleRenderer(colors=colors)

    def render(logger: object, method: str, event: Event) -> str:
        frames = event.pop("exception", None)
        line = renderer(logger, method, event)
        if not frames:
            return line
        return "\n".join([line, *_format_frames(frames)])

    return cast("Processor", render)


def _format_frames(stacks: list[dict[str, Any]]) -> Iterable[str]:
    for stack in stacks:
        for frame in stack.get("frames", ()):
            yield f"    {frame['filename']}:{frame['lineno']} in {frame['name']}"
        yield f"    {stack['exc_type']}: {stack['exc_value']}"


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
        getattr(logger, method)(_get_message(record), **fields)

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


def _get_message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - a wrong format string must not cost the line
        arguments = record.args.values() if isinstance(record.args, dict) else record.args or ()
        return " ".join([describe(record.msg), *map(describe, arguments)])


def _is_noise(record: logging.LogRecord) -> bool:
    """Pass over Alembic's lines on each start-up that tell nothing about the run."""
    return record.levelno <= logging.INFO and (
        record.name == "alembic.runtime.plugins" or quiet.is_set()
    )


# Set while the sidecar looks at the databases on its own account.
quiet = threading.Event()


def _writes_to_console(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.StreamHandler) and not isinstance(
        handler, logging.FileHandler
    )


def _take_warnings() -> None:
    logger = get_logger("py.warnings")

    def show(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any
    ) -> None:
        logger.warning(str(message), category=category.__name__, filename=filename, lineno=lineno)

    warnings.showwarning = show  # type: ignore[assignment]


def _take_thread_errors() -> None:
    logger = get_logger("threading")

    def log_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and args.exc_type is not SystemExit:
            name = args.thread.name if args.thread else None
            logger.error("exception in a thread", exc_info=args.exc_value, thread=name)

    def log_unraisable(args: sys.UnraisableHookArgs) -> None:
        logger.error(
            args.err_msg or "exception ignored", exc_info=args.exc_value, object=repr(args.object)
        )

    threading.excepthook = log_thread
    sys.unraisablehook = log_unraisable
