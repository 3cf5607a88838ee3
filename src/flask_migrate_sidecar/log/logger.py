"""The log: every line is one JSON object (or one console line), whatever the application does.

Loggers are bound to our own processors, not to structlog's global configuration, so that neither
`structlog.configure()`, `dictConfig()` nor `fileConfig()` changes the form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import structlog

from flask_migrate_sidecar.process import threads

from . import lines
from .console import add_progress, make_console
from .events import (
    LEVELS,
    OURS,
    THEIRS,
    Event,
    add_level,
    add_timestamp,
    is_last,
    mask,
    put_first,
    render_exception,
)
from .structure import parse_object, place

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger, Processor

_PLACE: Final = {"pod": "POD_NAME", "namespace": "POD_NAMESPACE", "node": "NODE_NAME"}

# Set while the sidecar looks at the databases on its own account.
quiet: Final = threads.Event()


class Output(Protocol):
    """Where finished lines go: the captured streams of the process."""

    def write_log(self, line: str) -> None:
        """Write one line."""

    def drain(self) -> None:
        """Hand on what was printed until now."""

    def is_terminal(self) -> bool:
        """Tell whether a person reads along."""


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
        # Whatever the level: without its last line nobody could tell how a run ended.
        if self.write is None or (level < self.level and not is_last(event)):
            raise structlog.DropEvent
        # What was printed before has an earlier time, and comes first.
        self.drain()
        theirs = event.pop(THEIRS, {})
        result: Any = {**self.context, **event, **theirs}
        for processor in self.processors:
            result = processor(None, method, result)
        return cast("str", result)

    def __getattr__(self, name: str) -> Callable[[str], None]:
        """Write the line, whatever the level is called."""
        if name not in LEVELS:
            raise AttributeError(name)
        return self.write_line

    def write_line(self, line: str) -> None:
        if self.write is not None:
            self.write(line)


_sink: Final = _Sink()


@contextmanager
def separate_log() -> Iterator[None]:
    """Give the block a log that is not set up yet, and take it away behind it: for tests."""
    before = dict(vars(_sink))
    vars(_sink).update(vars(_Sink()))
    try:
        yield
    finally:
        vars(_sink).update(before)


def get_logger(name: str) -> FilteringBoundLogger:
    """Give a logger for one of our modules, or for records of others under any other name."""
    return cast(
        "FilteringBoundLogger",
        structlog.wrap_logger(
            _sink,
            processors=[_sink.process],
            wrapper_class=structlog.make_filtering_bound_logger(0),
            context_class=dict,
        ).bind(logger=name, **({OURS: True} if _is_ours(name) else {})),
    )


def _is_ours(name: str) -> bool:
    return name == "output" or name.partition(".")[0] == __name__.partition(".")[0]


def configure_log(output: Output, *, form: str, level: str) -> None:
    """Set up the log.

    Args:
        output: where lines go.
        form: `json`, `console`, or `auto` for console on a terminal and JSON elsewhere.
        level: least severe level that is logged.
    """
    console = form == "console" or (form == "auto" and output.is_terminal())
    _sink.processors = [
        add_level,
        add_timestamp,
        structlog.processors.ExceptionRenderer(render_exception),
        mask,
        put_first,
        _report_last,
    ]
    if console:
        _sink.processors += [add_progress, _in_lines(make_console(colors=output.is_terminal()))]
    else:
        _sink.processors.append(_in_lines(lambda _logger, _method, event: lines.encode(event)))
    _sink.level = LEVELS[level]
    _sink.drain = output.drain
    _sink.write = output.write_log


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
    if _sink.write is None:
        return
    theirs = parse_object(text)
    told = {"text": text} if theirs is None else {THEIRS: place(theirs)}
    _output.info("output", stream=stream, **told)


def log_skipped(stream: str, size: int) -> None:
    """Say that some bytes of what a program printed are not logged."""
    if _sink.write is not None:
        _output.warning(
            "output.skipped",
            stream=stream,
            bytes=size,
            hint="a program prints faster than its lines are logged: let it write to a file",
        )


_output: Final = get_logger("output")


def _in_lines(render: Processor) -> Processor:
    """Render an event in lines none of which is too long."""

    def make_lines(logger: object, method: str, event: Event) -> str:
        whole = lines.tell_whole(event) if _sink.level == LEVELS["debug"] else ()
        told = [*whole, *lines.split(event)]
        return "\n".join(str(render(logger, method, dict(part))) for part in told)

    return cast("Processor", make_lines)


def _report_last(_logger: object, _method: str, event: Event) -> Event:
    is_reported = is_last(event)
    event.pop(OURS, None)
    if is_reported:
        _sink.report_last(event)
    return event
