"""Wheel, sdist and editable install carry the repository templates, and copies agree."""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from flask_migrate.config import find_templates
from library import flask, tables_of, write_app

PROJECT = Path(__file__).parents[2]
TEMPLATES = ("aioflask", "aioflask-multidb", "flask", "flask-multidb")

# Flask-SQLAlchemy has no asynchronous engine; making a repository needs none.
RUNS_WITH_FLASK_SQLALCHEMY = ("flask", "flask-multidb")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Build wheel and sdist; return what pip is to install for each form."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(build, cwd=PROJECT, check=True, capture_output=True)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return {"wheel": [str(wheel)], "sdist": [str(sdist)], "editable": ["-e", str(PROJECT)]}


def install(arguments: list[str], folder: Path) -> Path:
    """Make an environment with our package alone, the rest borrowed; return its Python.

    Folders that a `.pth` file names are searched, but `.pth` files in them are not read: the
    tests' own editable install stays out.
    """
    venv.create(folder, symlinks=True)
    python = folder / "bin/python"
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    offline = ["--no-deps", "--no-index", "--no-build-isolation", "-q"]
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", *offline]
    done = subprocess.run([*pip, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return python


@pytest.mark.parametrize("form", ["wheel", "sdist", "editable"])
def test_every_template(form: str, built: dict[str, list[str]], tmp_path: Path) -> None:
    """`flask db init` finds every template in every form of installation, and they run."""
    python = install(built[form], tmp_path / "venv")
    where = [str(python), "-c", "import flask_migrate; print(flask_migrate.__file__)"]
    package = subprocess.run(where, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    home = PROJECT if form == "editable" else tmp_path / "venv"
    assert Path(package).is_relative_to(home)

    app = write_app(tmp_path / "app")
    listed, *_ = flask(
        app,
        "db list-templates",
        *(f"db init -d {name} -t {name}" for name in TEMPLATES),
        *(f"db -d {name} migrate" for name in RUNS_WITH_FLASK_SQLALCHEMY),
        "db -d flask upgrade",
        python=python,
    )
    assert [line.split(" - ")[0] for line in listed.stdout.splitlines()[2:]] == [*TEMPLATES]
    for name in TEMPLATES:
        files = {file.name for file in (app / name).iterdir()} - {"__pycache__"}
        assert files == {"README", "alembic.ini", "env.py", "script.py.mako", "versions"}
    assert tables_of(app / "main.db") == {"person"}


@pytest.mark.parametrize(
    ("name", "templates"),
    [
        ("alembic.ini.mako", TEMPLATES),
        ("script.py.mako", ("flask", "aioflask")),
        ("script.py.mako", ("flask-multidb", "aioflask-multidb")),
    ],
)
def test_copies_are_identical(name: str, templates: tuple[str, ...]) -> None:
    """A template is a folder of whole files, so some exist twice: they must not drift apart."""
    assert len({(find_templates() / folder / name).read_text() for folder in templates}) == 1


def test_first_line_of_readme_is_the_synopsis() -> None:
    """`list-templates` shows the first line, so it says what the template is for."""
    for name in TEMPLATES:
        assert (find_templates() / name / "README").read_text().splitlines()[0].endswith(".")
