"""What `py.typed` promises: the programs in `tests/typing` pass, and fail, `mypy --strict`.

mypy itself runs over them with all else (`files` in pyproject.toml): a `type: ignore` that is not
needed is an error there too.
"""

from pathlib import Path

from flask_migrate import __all__ as public

TYPING = Path(__file__).parents[1] / "typing"


def test_program_calls_every_public_name() -> None:
    """No public name is missing in the program."""
    text = (TYPING / "program.py").read_text().split("flask_migrate import (")[1]
    assert {name for name in public if text.count(name) < 2} == set()
