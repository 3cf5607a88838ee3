"""The log for a terminal: one event a line, and the traceback below it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

import structlog

from .events import Event

if TYPE_CHECKING:
    from structlog.typing import Processor


def add_progress(_logger: object, _method: str, event: Event) -> Event:
    """Put which of how many revisions it was before the event's name."""
    if "step" in event and "steps" in event:
        event["event"] = f"[{event.pop('step')}/{event.pop('steps')}] {event['event']}"
    return event


def make_console(*, colors: bool) -> Processor:
    """Make the processor that ends with a text for a person."""
    renderer = structlog.dev.ConsoleRenderer(colors=colors)

    def render(logger: object, method: str, event: Event) -> str:
        frames = event.pop("exception", None)
        line = renderer(logger, method, event)
        return "\n".join([line, *_format_frames(frames or ())])

    return cast("Processor", render)


def _format_frames(stacks: Iterable[dict[str, Any]]) -> Iterable[str]:
    for stack in stacks:
        for frame in stack.get("frames", ()):
            if "skipped" in frame:
                yield f"    ... {frame['skipped']} more"
            else:
                yield f"    {frame['filename']}:{frame['lineno']} in {frame['name']}"
        yield f"    {stack['exc_type']}: {stack['exc_value']}"
