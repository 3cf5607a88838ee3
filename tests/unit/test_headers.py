"""A revision's header tells what its module would: or that it cannot."""

import random
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from conftest import APPS
from flask_migrate.headers import NAMES, LazyRevision, read_header

STOCK = '''"""Add a table

Revision ID: b2
Revises: a1
Create Date: 2026-01-01 10:00:00

"""
from typing import Sequence, Union

from alembic import op
import sqlalchemy as sa

# revision identifiers, used by Alembic.
revision: str = 'b2'
down_revision: Union[str, Sequence[str], None] = 'a1'
branch_labels: Union[str, Sequence[str], None] = None
depends_on: Union[str, Sequence[str], None] = None


def upgrade() -> None:
    op.create_table("x", sa.Column("id", sa.Integer))


def downgrade() -> None:
    op.drop_table("x")
'''

# What a file can be made of; each is a statement of a module, or none.
PIECES = {
    "docstring": ['"""What it does."""\n', "'''it's one'''\n", '"one line"\n', 'r"""raw"""\n', ""],
    "imports": [
        *("import sqlalchemy as sa\n", "from typing import Sequence, Union\n", "\n", "# comment\n"),
        *(
            "from typing import (\n    Any,\n)\n",
            "import os.path, sys\n",
            "from os.path import *\n",
        ),
        *("import os as revision\n", "from string import whitespace as down_revision\n"),
    ],
    "revision": [
        *('revision = "b2"\n', "revision='b2'  # mine\n", "revision: str = 'b2'\n"),
        *('revision = "b" "2"\n', 'revision = "b2"; other = 1\n', "revision = str('b2')\n"),
        *("if True:\n    revision = 'b2'\n", 'x = revision = "b2"\n', "revision = 'b\\x32'\n"),
    ],
    "down_revision": [
        *("down_revision = None\n", "down_revision = 'a1'\n", 'down_revision = ("a1", "a0")\n'),
        *("down_revision = ['a1']\n", "down_revision = (\n    'a1',\n    'a0',\n)\n"),
        *("down_revision = ('a1')\n", "down_revision = ()\n", "down_revision = None or 'a1'\n"),
    ],
    "branch_labels": [
        "branch_labels = None\n",
        "branch_labels = ('shop',)\n",
        "labels = None\n",
        "",
    ],
    "depends_on": ["depends_on = None\n", "depends_on = 'c3'\n", ""],
    "behind": [
        *("def upgrade():\n    pass\n", "x = 'revision'\n", "revision = 'other'\n", ""),
        *('TEXT = """\nrevision = "zz"\n"""\n', "globals()['revision'] = 'other'\n"),
        *("def upgrade():\n    global revision\n", "del down_revision\n", "revision += 'x'\n"),
        *(
            "for depends_on in 'xyz':\n    pass\n",
            "__doc__ = 'other'\n",
            "class branch_labels: pass\n",
        ),
        *("import sys as s\nvars(s)\n", "def upgrade_users(): pass\n", "x = 1  # revision\n"),
    ],
}


def run(text: str) -> dict[str, Any] | None:
    """Give what Python makes of a text, None where that fails."""
    namespace: dict[str, Any] = {"__name__": "x", "__doc__": None}
    try:
        exec(compile(text, "x", "exec"), namespace)  # noqa: S102 - as importing a revision does
    except Exception:  # noqa: BLE001 - whatever it is
        return None
    return {name: namespace[name] for name in ("__doc__", *NAMES) if name in namespace}


def choose(chance: random.Random, name: str) -> str:
    """Choose a piece; the first ones are what most files have."""
    pieces = PIECES[name]
    return chance.choice(pieces[:2] if chance.random() < 0.8 else pieces)


def test_stock_file() -> None:
    """What the templates of Alembic and Flask-Migrate write is read without Python."""
    header = read_header(STOCK)
    assert header == run(STOCK)
    assert header is not None
    assert header["revision"] == "b2"


@pytest.mark.parametrize("file", sorted(APPS.glob("shop/**/versions/*.py")), ids=lambda f: f.stem)
def test_files_of_an_application(file: Path) -> None:
    """The history of the example is read without Python too."""
    text = file.read_text(encoding="utf-8")
    assert read_header(text) == run(text)


@pytest.mark.parametrize("seed", range(20))
def test_any_shape_of_file(seed: int) -> None:
    """Whatever a file is made of, its header is what Python makes of it, or nothing at all."""
    chance = random.Random(seed)  # noqa: S311
    read = 0
    for _ in range(300):
        names = list(NAMES)
        chance.shuffle(names)
        parts = [choose(chance, name) for name in ("docstring", "imports", *names, "behind")]
        if chance.random() < 0.3:
            chance.shuffle(parts)
        text = "".join(parts)
        header = read_header(text)
        if header is not None:
            read += 1
            assert header == run(text), text
    assert read


@pytest.mark.parametrize(
    "text",
    [
        "# -*- coding: latin-1 -*-\nrevision = 'b2'\ndown_revision = None\n",
        "\ufeffrevision = 'b2'\ndown_revision = None\n",
        "revision = 'b2'\r\ndown_revision = None\r\n",
        "x = '''\nrevision = 'b2'\ndown_revision = None\n'''\n",
        "x = dict(\nrevision='b2',\ndown_revision=None,\n)\n",
        '"""What it does.\n\n    In detail.\n"""\nrevision = "b2"\ndown_revision = None\n',
        "revision = 'b2'\n",
        "",
    ],
)
def test_file_that_only_python_can_tell(text: str) -> None:
    """What is in doubt is not read."""
    assert read_header(text) is None


def test_file_runs_when_it_is_needed(tmp_path: Path) -> None:
    """A revision is imported once, by whoever asks for more than its header."""
    file = tmp_path / "b2.py"
    file.write_text(f"{STOCK}\nimport sys\nsys.ran.append(1)\n")
    ran: list[int] = []
    vars(sys)["ran"] = ran
    header = read_header(STOCK)
    assert header is not None
    module = LazyRevision("b2", file, header)
    assert isinstance(module, ModuleType)
    assert (module.revision, module.down_revision, module.depends_on) == ("b2", "a1", None)
    assert not hasattr(module, "_alembic_source_encoding")
    assert ran == []
    assert callable(module.upgrade)
    assert callable(module.downgrade)
    assert not hasattr(module, "nothing")
    assert ran == [1]
    del vars(sys)["ran"]


def test_file_that_is_broken_is_told_each_time(tmp_path: Path) -> None:
    """A file that cannot be run says so to each who asks."""
    file = tmp_path / "b2.py"
    file.write_text(f"{STOCK}\nraise ValueError('broken')\n")
    module = LazyRevision("b2", file, {"__doc__": None, "revision": "b2", "down_revision": None})
    for _ in range(2):
        with pytest.raises(ValueError, match="broken"):
            _ = module.upgrade
