"""The application is found where `flask` would find it, and in folders that trip `flask`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from app_code import HEAD, find_events, read_last, write_app, write_repository
from conftest import clean_environment

if TYPE_CHECKING:
    from conftest import RunCommand

FACTORY = """
from flask import Flask
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy

db = SQLAlchemy()
migrate = Migrate()


def {name}({arguments}):
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = {url}
    db.init_app(app)
    migrate.init_app(app, db)
    return app
"""


def url(tmp_path: Path) -> dict[str, str]:
    """Name a database outside of the application's folder."""
    return {"DATABASE_URL": f"sqlite:///{tmp_path}/x.db"}


def succeeds(result: subprocess.CompletedProcess[str]) -> None:
    """Hold a run to having applied the one revision, with an application."""
    assert read_last(result)["applied"] == ["a1"], result.stderr
    assert find_events(result, "app.loaded")[0]["source"] == "mounted"


def write_module(folder: Path, path: str, text: str) -> Path:
    """Write a module and its folders beside a repository."""
    write_repository(folder / "migrations")
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return folder


@pytest.mark.parametrize("path", ["app.py", "wsgi.py", "app/__init__.py", "src/app.py"])
def test_finds_by_itself(path: str, tmp_path: Path, launch: "RunCommand") -> None:
    """`wsgi.py` and `app.py` are found without a name, as packages and below `src` too."""
    app = write_module(tmp_path / "app", path, HEAD)
    succeeds(launch(app, "db", "upgrade", env=url(tmp_path)))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("shop.py", "shop"),
        ("shop.py", "shop.py"),
        ("shop.py", "shop:app"),
        ("shop/__init__.py", "shop"),
        ("shop/web.py", "shop.web"),
        ("shop/web.py", "shop.web:app"),
        ("space/shop/web.py", "space.shop.web:app"),
        ("src/shop/__init__.py", "shop"),
        ("src/space/shop/web.py", "space.shop.web:app"),
    ],
)
def test_takes_a_name(path: str, name: str, tmp_path: Path, launch: "RunCommand") -> None:
    """Modules, packages, packages under `src` and namespace packages are named as for `flask`."""
    app = write_module(tmp_path / "app", path, HEAD)
    env = url(tmp_path)
    succeeds(launch(app, "--app", name, "db", "upgrade", env=env))
    last = read_last(launch(app, "db", "downgrade", "base", env={**env, "FLASK_APP": name}))
    assert last["exit_code"] == 0


@pytest.mark.parametrize(
    ("name", "arguments", "given"),
    [
        ("create_app", "", "shop"),
        ("make_app", "", "shop:make_app"),
        ("build", "folder, *, name='nix.db'", "shop:build('{folder}', name='x.db')"),
    ],
)
def test_takes_a_factory(
    name: str, arguments: str, given: str, tmp_path: Path, launch: "RunCommand"
) -> None:
    """Factories are called, with the arguments that the name has."""
    where = "f'sqlite:///{folder}/{name}'" if arguments else "'sqlite:////{}/x.db'"
    text = FACTORY.format(name=name, arguments=arguments, url=where.replace("/{}", str(tmp_path)))
    app = write_module(tmp_path / "app", "shop.py", text)
    succeeds(launch(app, "--app", given.format(folder=tmp_path), "db", "upgrade"))
    assert (tmp_path / "x.db").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("nix", "there is no application 'nix'"),
        ("shop:nix", "nix"),
        ("shop:app.name.nix(", "parse"),
        ("shop:db", "did not return|Flask instance|valid Flask"),
    ],
)
def test_wrong_name(given: str, said: str, tmp_path: Path, launch: "RunCommand") -> None:
    """A name that does not fit is 4, and the hint says how names look."""
    app = write_module(tmp_path / "app", "shop.py", HEAD)
    last = read_last(launch(app, "--app", given, "db", "upgrade", env=url(tmp_path)))
    assert last["exit_code"] == 4
    assert any(text in last["error"]["message"] for text in said.split("|"))
    assert "--app" in last["hint"]


def test_app_without_migrate(tmp_path: Path, launch: "RunCommand") -> None:
    """An application that has no Migrate is 4."""
    app = write_module(tmp_path / "app", "app.py", "import flask\napp = flask.Flask(__name__)\n")
    last = read_last(launch(app, "db", "upgrade"))
    assert last["exit_code"] == 4
    assert "has no Migrate" in last["error"]["message"]


@pytest.mark.parametrize("way", ["flag", "variable", "relative", "working directory"])
def test_app_dir(way: str, tmp_path: Path, launch: "RunCommand") -> None:
    """The folder is put on the path and made the working directory; files are relative to it."""
    body = "assert open('beside.txt').read() == 'here'\nimport neighbour\n"
    app = write_app(tmp_path / "app", body)
    (app / "beside.txt").write_text("here")
    (app / "neighbour.py").touch()
    arguments = {"flag": ["--app-dir", str(app)], "relative": ["--app-dir", "app"]}.get(way, [])
    env = url(tmp_path) | ({"MIGRATE_APP_DIR": str(app)} if way == "variable" else {})
    cwd = app if way == "working directory" else tmp_path
    succeeds(launch(cwd, *arguments, "db", "upgrade", env=env))


def test_app_dir_that_is_missing(tmp_path: Path, launch: "RunCommand") -> None:
    """A folder that is not there is 3, not a search elsewhere."""
    write_app(tmp_path)
    last = read_last(launch(tmp_path, "--app-dir", "nix", "db", "upgrade", env=url(tmp_path)))
    assert last["exit_code"] == 3


@pytest.mark.parametrize("file", [".env", ".flaskenv"])
def test_dotenv(file: str, tmp_path: Path, launch: "RunCommand") -> None:
    """python-dotenv's files beside the application are read as `flask` reads them."""
    app = write_module(tmp_path / "app", "shop.py", HEAD)
    lines = {"FLASK_APP": "shop", "MIGRATE_LOCK": "none", **url(tmp_path)}
    (app / file).write_text("".join(f"{name}={text}\n" for name, text in lines.items()))
    result = launch(tmp_path, "--app-dir", "app", "db", "upgrade")
    succeeds(result)
    assert find_events(result, "sidecar.started")[0]["settings"]["lock"] == "none"


@pytest.mark.parametrize(
    "name", ["flask", "alembic", "flask_migrate", "click", "flask_migrate_sidecar", "queue", "a-b"]
)
@pytest.mark.parametrize("given", [None, "app:app"])
def test_folder_named_like_a_module(
    name: str, given: str | None, tmp_path: Path, launch: "RunCommand"
) -> None:
    """A folder may be called like one of Flask's, ours or Python's modules, as a package too."""
    app = write_app(tmp_path / name)
    (app / "__init__.py").touch()
    arguments = ["--app", given] if given else []
    succeeds(launch(app, *arguments, "db", "upgrade", env=url(tmp_path)))


@pytest.mark.parametrize("name", ["lock", "log", "settings", "run", "wait", "errors", "databases"])
def test_module_named_like_ours(name: str, tmp_path: Path, launch: "RunCommand") -> None:
    """The application's modules may be called as ours are: theirs are theirs."""
    app = write_app(tmp_path / "app", f"import {name}\nassert {name}.mine\n")
    (app / f"{name}.py").write_text("mine = True\n")
    succeeds(launch(app, "db", "upgrade", env=url(tmp_path)))


@pytest.mark.parametrize("name", ["click", "alembic", "structlog"])
def test_module_named_like_flasks(name: str, tmp_path: Path, launch: "RunCommand") -> None:
    """A module beside the application does not come before what the sidecar itself imports."""
    app = write_app(tmp_path / "app")
    (app / f"{name}.py").write_text("raise RuntimeError(__file__)\n")
    succeeds(launch(app, "db", "upgrade", env=url(tmp_path)))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare is missing")
@pytest.mark.parametrize("relative", [False, True])
def test_read_only_mount(relative: bool, tmp_path: Path) -> None:
    """A folder that is mounted read-only runs; only a SQLite file inside of it is refused."""
    app = write_app(tmp_path / "app")
    script = 'mount --bind . . && mount -o remount,ro,bind . && cd "$PWD" && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh"]
    run = [sys.executable, "-m", "flask_migrate_sidecar", "db", "upgrade"]
    env = clean_environment() | (url(tmp_path) if not relative else {})
    probe = subprocess.run([*command, "true"], cwd=app, check=False, capture_output=True)
    if probe.returncode:
        pytest.skip("this machine does not let us mount")
    result = subprocess.run(
        [*command, *run], cwd=app, env=env, check=False, capture_output=True, text=True
    )
    assert read_last(result)["exit_code"] == (6 if relative else 0)
    assert not list(app.rglob("__pycache__"))
