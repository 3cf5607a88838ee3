"""The last resort: which code an error has that nobody handled."""

import pytest

from flask_migrate_sidecar.log.last_resort import explain


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
