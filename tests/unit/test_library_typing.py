"""What `py.typed` promises: programs of users pass, and fail, `mypy --strict`."""

import subprocess
import sys
from pathlib import Path

import flask_migrate
from flask_migrate import __all__ as public

TYPING = Path(__file__).parents[1] / "typing"
SOURCES = Path(flask_migrate.__file__).parents[1]


def test_users_programs(tmp_path: Path) -> None:
    """The program has no error; in the other one each `type: ignore` is needed."""
    (tmp_path / "mypy.ini").write_text(f"[mypy]\nmypy_path = {SOURCES}\n")
    programs = [TYPING / "program.py", TYPING / "mistakes.py"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", "mypy.ini", *programs],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    expected = "Success: no issues found in 2 source files"
    assert expected in done.stdout, done.stdout + done.stderr


def test_program_calls_every_public_name() -> None:
    """No public name is missing in the program."""
    text = (TYPING / "program.py").read_text().split("flask_migrate import (")[1]
    assert {name for name in public if text.count(name) < 2} == set()
