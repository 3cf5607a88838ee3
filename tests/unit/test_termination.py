"""The termination message is one line of JSON that fits, whatever the event holds."""

import json
from pathlib import Path

import pytest

from flask_migrate_sidecar.errors import UsageError
from flask_migrate_sidecar.log.termination_message import find_path, make_message, write_message
from flask_migrate_sidecar.settings.sources import read_settings

# Bytes of a message that the kubelet keeps (Kubernetes, "Customizing the termination message").
LIMIT = 4096
FAILURE = {
    "timestamp": "2026-01-01T00:00:00.000000Z",
    "event": "command.failed",
    "exit_code": 8,
    "error": {"type": "MigrationError", "message": "no such table"},
    "hint": "mend the revision",
}


def test_an_event_that_fits_is_whole() -> None:
    """Nothing is cut but the traceback, which the log has."""
    assert json.loads(make_message({**FAILURE, "exception": [{"frames": []}]})) == FAILURE


@pytest.mark.parametrize(
    "addition",
    [
        {"error": {"type": "MigrationError", "message": "x" * 9000}},
        {"error": {"type": "MigrationError", "message": "\u20ac" * 5000}},
        {"error": {"type": "MigrationError", "message": '"\\' * 5000}},
        {"applied": [f"{number:012x}" for number in range(1000)]},
        {f"field{number}": "y" * 90 for number in range(90)},
        {"deep": {"deeper": {"text": "z" * 9000, "list": ["a" * 3000, "b" * 3000]}}},
    ],
    ids=["long", "euro", "quotes", "list", "many", "deep"],
)
def test_a_long_event_stays_valid(addition: dict[str, object]) -> None:
    """What is too long is cut so that JSON, characters and the exit code stay whole."""
    line = make_message({**FAILURE, **addition})
    assert len(line) <= LIMIT
    assert json.loads(line)["exit_code"] == 8
    assert json.loads(line)["event"] == "command.failed"


def test_a_long_message_keeps_its_begin() -> None:
    """The cause stands at the beginning of a message."""
    message = "relation does not exist " + "x" * 9000
    error = json.loads(make_message({**FAILURE, "error": {"type": "E", "message": message}}))[
        "error"
    ]
    assert error["message"].startswith("relation does not exist")
    assert error["message"].endswith("...")
    assert len(make_message({**FAILURE, "error": {"type": "E", "message": message}})) > LIMIT - 100


def test_lone_surrogates_are_text() -> None:
    """File names that are no UTF-8 do not cost the message."""
    assert b"?" in make_message({**FAILURE, "hint": "\udcff"})


def test_the_path_is_found_where_others_are_malformed(tmp_path: Path) -> None:
    """That another setting is malformed must reach the file as well."""
    environ = {"MIGRATE_TERMINATION_LOG": str(tmp_path / "b"), "MIGRATE_WAIT_TIMEOUT": "soon"}
    settings, error = read_settings({"termination_log": [str(tmp_path / "a")]}, environ)
    assert find_path(settings.termination_log) == tmp_path / "a"
    assert isinstance(error, UsageError)
    settings, error = read_settings({}, environ)
    assert find_path(settings.termination_log) == tmp_path / "b"


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """The last event itself names the file: no line may come after it."""
    event: dict[str, object] = dict(FAILURE)
    write_message(tmp_path / "absent" / "log", event)
    assert "cannot be written" in str(event["termination_log"])
