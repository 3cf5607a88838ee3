"""The log for a terminal: one event a line, and the traceback below it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, cast

import structlog

from .events import Event

if TYPE_CHECKING:
    from structlog.typing import Processor

# Control characters (C0, DEL, C1), the separators of Unicode, and what turns its direction.
_CONTROLS: Final = {
    number: ascii(chr(number))[1:-1]
    for numbers in (range(32), range(127, 160), (0x2028, 0x2029), range(0x202A, 0x202F))
    for number in (*numbers, *range(0x2066, 0x206A))
}


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
        line = renderer(logger, method, {_show(key): _show(value) for key, value in event.items()})
        return "\n".join([line, *_format_frames(frames or ())])

    return cast("Processor", render)


def _format_frames(stacks: Iterable[dict[str, Any]]) -> Iterable[str]:
    for stack in stacks:
        for frame in stack.get("frames", ()):
            if "skipped" in frame:
                yield f"    ... {frame['skipped']} more"
            else:
                yield _show(f"    {frame['filename']}:{frame['lineno']} in {frame['name']}")
        for line in f"{stack['exc_type']}: {stack['exc_value']}".splitlines():
            yield f"    {_show(line)}"


def _show(value: Any) -> Any:
    """Spell out what moves a terminal's cursor or begins a line: nobody's text looks like ours."""
    return value.translate(_CONTROLS) if isinstance(value, str) else value
