"""The last resort: which code an error has that nobody handled."""

import json

import pytest

from flask_migrate_sidecar.errors import MigrationError, describe
from flask_migrate_sidecar.log import last_resort
from flask_migrate_sidecar.log.last_resort import explain, write_last_line


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), 3),
        (FileNotFoundError(2, "No such file or directory", "/nowhere"), 3),
        (MemoryError(), 3),
        (ValueError("boom"), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_surrounds_the_process_is_told_from_faults(error: Exception, code: int) -> None:
    """What is wrong around the process is 3, with something to do; a fault of ours is 1."""
    told = explain(error)
    assert told.exit_code == code
    assert getattr(told, "hint", None)


def test_line_that_cannot_be_made(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where not even the last line can be written, for lack of memory, another one is there."""

    def fail(_event: object) -> str:
        raise MemoryError

    monkeypatch.setattr(last_resort, "encode", fail)
    for error, code in ((ValueError("boom"), 3), (MigrationError("boom"), 8)):
        assert write_last_line(error) == code
        [line] = capfd.readouterr().err.splitlines()
        assert (json.loads(line)["event"], json.loads(line)["exit_code"]) == (
            "command.failed",
            code,
        )


@pytest.mark.parametrize("raised", [ValueError, SystemExit, KeyboardInterrupt])
def test_object_that_cannot_tell_its_text(raised: type[BaseException]) -> None:
    """Whatever an object raises when it is asked for its text, the line is written."""

    class Silent:
        def __str__(self) -> str:
            raise raised

    assert describe(Silent()) == "<Silent without a text>"
