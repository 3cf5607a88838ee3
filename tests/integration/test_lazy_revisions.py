"""A revision's file is imported by whoever runs it or shows it, and by nobody else."""

import sys
from pathlib import Path

import pytest

from app_code import REVISION, write_app
from conftest import Run
from sidecar_runs import Launcher

SECOND = """
revision = "b2"
down_revision = "a1"


def upgrade():
    pass


def downgrade():
    pass
"""
FLASK = (sys.executable, "-m", "flask", "db")


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """Return an application with two revisions that say when they are imported."""
    app = write_app(tmp_path / "app", revision=f"{REVISION}\nprint('imported a1')\n")
    (app / "migrations/versions/b2_other.py").write_text(f"{SECOND}\nprint('imported b2')\n")
    return app


@pytest.mark.parametrize("is_sidecar", [False, True], ids=["library", "sidecar"])
def test_who_imports_what(is_sidecar: bool, app: Path, run: Run, launch: Launcher) -> None:
    """An upgrade imports what is pending, once; at head none; `history` and `check` all."""

    def imported(*words: str) -> list[str]:
        if is_sidecar:
            result = launch(app, "db", *words)
            assert result.returncode == 0, result.stderr
            texts = [line["text"] for line in result.log if line["event"] == "output"]
        else:
            done = run([*FLASK, *words], cwd=app)
            assert done.returncode == 0, done.stderr
            texts = done.stdout.splitlines()
        return sorted(text.split()[1] for text in texts if text.startswith("imported"))

    assert {*imported("upgrade", "a1")} == {"a1"}
    assert {*imported("upgrade")} == {"b2"}
    assert imported("upgrade") == imported("current") == imported("heads") == []
    assert {*imported("history")} == {*imported("check")} == {"a1", "b2"}
    assert {*imported("downgrade", "base")} == {"a1", "b2"}


@pytest.mark.parametrize("fault", ["raise ValueError('broken')", "def ("])
def test_broken_file(fault: str, app: Path, run: Run, launch: Launcher) -> None:
    """A file that is broken stops what needs it, and shows in `history`."""
    assert launch(app, "db", "upgrade", "a1").returncode == 0
    with (app / "migrations/versions/a1_thing.py").open("a") as file:
        file.write(f"\n{fault}\n")
    assert launch(app, "db", "upgrade").returncode == 0
    assert launch(app, "db", "history").returncode == 9
    result = launch(app, "db", "downgrade", "base")
    assert result.returncode == 9
    assert "a1_thing.py" in result.last["error"]["message"] + str(result.last.get("hint"))
    assert run([*FLASK, "upgrade"], cwd=app).returncode == 0
    assert run([*FLASK, "history"], cwd=app).returncode == 1
