"""No line of the log is longer than a container's runtime takes, and none says less for it."""

import json
from typing import Any

import pytest

from flask_migrate_sidecar.log.events import render_exception
from flask_migrate_sidecar.log.lines import encode, split, tell_whole

# Bytes of a line that README promises; containerd and Docker cut at 16 KiB.
LIMIT = 16_000
HEAD = {"timestamp": "t", "level": "error", "event": "command.failed", "logger": "x"}


def lines_of(event: dict[str, Any]) -> list[dict[str, Any]]:
    """Give the lines of an event, each within the limit."""
    lines = [encode(part) for part in split(dict(event))]
    assert all(len(line) < LIMIT for line in lines)
    return [json.loads(line) for line in lines]


def test_what_fits_is_left_alone() -> None:
    """An event that fits is one line, with nothing added."""
    event = {**HEAD, "text": "x" * (LIMIT - 200)}
    assert lines_of(event) == [event]


def test_what_hardly_fits_not() -> None:
    """An event that is a byte too long is cut."""
    size = len(encode({**HEAD, "text": ""}))
    event = {**HEAD, "text": "x" * (LIMIT - size)}
    assert lines_of(event) != [event]


@pytest.mark.parametrize("letter", ["x", "\u20ac", "\x00", '"', "\U0001f600"])
def test_print_is_told_in_parts(letter: str) -> None:
    """What a program printed is all there, whatever its characters cost in JSON."""
    text = letter * 100_000
    lines = lines_of({**HEAD, "event": "output", "logger": "output", "text": text})
    assert "".join(line["text"] for line in lines) == text
    assert [(line["part"], line["parts"]) for line in lines] == [
        (number, len(lines)) for number in range(1, len(lines) + 1)
    ]


def test_list_is_counted_and_cut() -> None:
    """A plan of hundreds of revisions keeps its first ones, their number, and what went."""
    revisions = [{"revision": f"{n:012x}", "message": "m" * 30} for n in range(500)]
    event = {**HEAD, "event": "migration.plan", "count": 500, "revisions": revisions}
    [line] = lines_of(event)
    assert line["count"] == 500
    assert line["revisions"] == revisions[: len(line["revisions"])]
    assert line["cut"] == 500 - len(line["revisions"])
    assert len(line["revisions"]) > 150


def test_texts_are_cut_from_their_end() -> None:
    """Two texts of megabytes leave the beginning of each, and the exit code."""
    error = {"type": "E", "message": "begins " + "a" * 5_000_000}
    [line] = lines_of({**HEAD, "exit_code": 8, "error": error, "statement": "b" * 5_000_000})
    assert line["exit_code"] == 8
    assert line["error"]["message"].startswith("begins a")
    assert line["statement"].startswith("bbb")
    assert line["cut"] > 9_900_000


def test_whole_event_in_parts() -> None:
    """For whoever debugs, what was cut is told before, in parts that make the whole."""
    event = {**HEAD, "error": {"message": "a" * 50_000}}
    parts = [*tell_whole(dict(event))]
    assert all(len(encode(part)) < LIMIT for part in parts)
    assert json.loads("".join(str(part["text"]) for part in parts)) == event
    assert [*tell_whole(dict(HEAD))] == []


def recurse(depth: int) -> None:
    """Raise from a depth."""
    if depth == 0:
        raise ValueError("deep")
    recurse(depth - 1)


def test_recursion_keeps_its_ends() -> None:
    """Of frames of the application alone the outer and the inner ones stay."""
    try:
        recurse(300)
    except ValueError as error:
        [stack] = render_exception((type(error), error, error.__traceback__))
    frames = stack["frames"]
    assert frames[0]["name"] == "test_recursion_keeps_its_ends"
    assert frames[-1]["name"] == "recurse"
    [gap] = [frame for frame in frames if "skipped" in frame]
    assert gap["skipped"] + len(frames) - 1 == 302
    assert len(frames) == 31


@pytest.mark.parametrize(
    "fields",
    [
        {f"k{number}": number for number in range(20_000)},
        {f"column_{number}": f"some value of a row {number}" for number in range(2_000)},
        {"k" * 20_000: 1},
        {"from": {f"default/tenant{n}": ["a1"] for n in range(3_000)}, "to": {"x": ["a1"]}},
        {"a": {"b": {"c": ["x" * 9_000] * 9}}},
    ],
    ids=["many", "table", "name", "tenants", "deep"],
)
def test_what_every_line_has_stays(fields: dict[str, Any]) -> None:
    """However many fields, what says when, how bad and what is never cut, and it takes no time."""
    [line] = lines_of({**HEAD, **fields, "exit_code": 8})
    assert {**HEAD, "exit_code": 8}.items() <= line.items()
    assert line["cut"] > 0
