"""Makes lines of events: none is longer than a container's runtime takes for one.

A runtime cuts what is longer than 16 KiB (containerd's and Docker's log formats), and a cut line
of JSON is none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .events import Event

# Bytes, the line's end included.
LIMIT: Final = 16_000
_ELLIPSIS: Final = "..."
# What a line is nothing without.
_SPARED: Final = frozenset(
    {"timestamp", "level", "event", "logger", "command", "exit_code", "error", "hint"}
)
# Characters that a text keeps at least, where there is another one to be cut.
_WORTH_KEEPING: Final = 100
# Bytes of one part of a text that is told in several.
_PART: Final = 12_000


def encode(value: object) -> str:
    """Give a value as JSON, in ASCII: a byte is a character."""
    return json.dumps(value, default=str)


def shorten(
    event: Mapping[str, Any], limit: int, measure: Callable[[object], int]
) -> dict[str, Any]:
    """Give an event that fits a limit: its longest values are cut, and `cut` tells how much.

    Of a text the end goes, of a list the last entries, of a traceback the outermost frames: `cut`
    counts characters and entries.

    Args:
        event: the event.
        limit: in bytes.
        measure: tells how many a value is.
    """
    kept, cut = dict(event), 0
    while (excess := measure({**kept, "cut": cut}) - limit) > 0:
        kept, lost = _cut_dict(kept, excess, measure, spared=_SPARED)
        cut += lost
    return {**kept, "cut": cut} if cut else kept


def split(event: Event) -> Iterator[Mapping[str, Any]]:
    """Give an event as lines take it: what a program printed in parts, of anything else less."""
    if _size(event) < LIMIT:
        yield event
    elif _is_output(event):
        yield from _tell_in_parts(event, str(event["text"]))
    else:
        yield shorten(event, LIMIT - 1, _size)


def tell_whole(event: Event) -> Iterator[Mapping[str, Any]]:
    """Give what does not fit in a line as the parts of its JSON, for whoever wants all of it."""
    text = encode(event)
    if len(text) < LIMIT or _is_output(event):
        return
    head = {key: event[key] for key in ("timestamp", "level", "event", "logger") if key in event}
    of = {"of": event.get("event")}
    yield from _tell_in_parts({**head, "level": "debug", "event": "log.whole", **of}, text)


def _is_output(event: Event) -> bool:
    return event.get("event") == "output" and isinstance(event.get("text"), str)


def _tell_in_parts(event: Event, text: str) -> Iterator[Event]:
    parts = list(_divide(text))
    for number, part in enumerate(parts, start=1):
        yield {**event, "text": part, "part": number, "parts": len(parts)}


def _divide(text: str) -> Iterator[str]:
    """Cut a text where its JSON gets too long: a character is up to twelve bytes there."""
    for start in range(0, len(text), _PART):
        piece = text[start : start + _PART]
        step = len(piece) if _size(piece) <= _PART + 2 else _PART // 12
        yield from (piece[at : at + step] for at in range(0, len(piece), step))


def _size(value: object) -> int:
    return len(encode(value))


def _cut(value: Any, excess: int, measure: Callable[[object], int]) -> tuple[Any, int]:
    """Shorten a value by about `excess` bytes, None where nothing is worth keeping.

    Returns:
        What is left of it, and how much went.
    """
    if isinstance(value, dict) and value:
        shorter_dict, lost = _cut_dict(value, excess, measure)
        return shorter_dict or None, lost
    if isinstance(value, list) and len(value) > 1:
        kept, gone = list(value), 0
        while len(kept) > 1 and gone < excess:
            gone += measure(kept.pop())
        return kept, len(value) - len(kept)
    if isinstance(value, list) and value:
        shorter, lost = _cut(value[0], excess, measure)
        return (None if shorter is None else [shorter]), lost
    if isinstance(value, str) and len(value) > _WORTH_KEEPING:
        keep = max(len(value) - excess - len(_ELLIPSIS), _WORTH_KEEPING - len(_ELLIPSIS))
        return value[:keep] + _ELLIPSIS, len(value) - keep
    return None, 1


def _cut_dict(
    value: dict[str, Any],
    excess: int,
    measure: Callable[[object], int],
    spared: frozenset[str] = frozenset(),
) -> tuple[dict[str, Any], int]:
    """Cut the longest value where that is much of what is too much, and else the last entries."""
    sizes = {key: measure(key) + measure(item) for key, item in value.items()}
    longest = max(sizes, key=lambda key: sizes[key])
    is_much = 4 * sizes[longest] > excess and measure(longest) < _WORTH_KEEPING
    if is_much or {*sizes} <= spared:
        whole = value[longest]
        # The innermost frames say most.
        turned = whole[::-1] if longest == "frames" and isinstance(whole, list) else whole
        shorter, lost = _cut(turned, excess, measure)
        shorter = shorter[::-1] if turned is not whole and shorter else shorter
        if shorter is not None or longest in spared:
            return {**value, longest: shorter}, lost
        return {key: item for key, item in value.items() if key != longest}, lost
    kept, gone = dict(value), 0
    for key in [key for key in value if key not in spared][::-1]:
        if gone >= excess:
            break
        gone += sizes[key]
        del kept[key]
    return kept, len(value) - len(kept)
