"""The application's own packages come first, and the first line says which ones run."""

import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from app_code import find_events, install_packages, read_last, read_log, write_app
from conftest import clean_environment
from servers import Postgres

if TYPE_CHECKING:
    from conftest import RunCommand

PROJECT = Path(__file__).parents[2]
HERE = f"python{sys.version_info.major}.{sys.version_info.minor}"
PURELIB = Path(sysconfig.get_path("purelib"))
# SQLAlchemy's oldest release that can be imported: 2.0.31 was the first for Python 3.13, 2.0.44
# is one for 3.14.
OLD_SQLALCHEMY = {13: "2.0.31", 14: "2.0.44"}.get(sys.version_info.minor, "2.0.0")
OLD = (
    *("flask-sqlalchemy==3.0.2", f"sqlalchemy=={OLD_SQLALCHEMY}", "alembic==1.13.0"),
    *("flask<3", "werkzeug<3"),
)
NEW = ("flask-sqlalchemy", "sqlalchemy", "alembic", "flask")
UPSTREAM = ("3.1.0", "4.0.7", "4.1.0", None)
MATRIX = [(version, packages) for version in UPSTREAM for packages in (OLD, NEW)]
REPRESENTATIVE = ("4.1.0", OLD)


def cell(version: str | None, packages: Sequence[str]) -> Any:
    """Mark all but one combination of the matrix as long-running: each one is installed by pip."""
    marks = [] if (version, packages) == REPRESENTATIVE else [pytest.mark.endurance]
    name = f"{'oldest' if packages is OLD else 'newest'}-{version or 'ours'}"
    return pytest.param(version, packages, id=name, marks=marks)


def add_package(folder: Path, name: str, tag: str) -> Path:
    """Write what is left in a folder of a wheel that was installed there."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "WHEEL").write_text(f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {tag}\n")
    return folder


@pytest.mark.parametrize(("version", "packages"), [cell(*each) for each in MATRIX])
def test_matrix(
    version: str | None,
    packages: Sequence[str],
    copy_app: Callable[[str], Path],
    tmp_path: Path,
    sidecar: "RunCommand",
) -> None:
    """An app with its own upstream Flask-Migrate, SQLAlchemy and Alembic keeps our exit codes."""
    age = "oldest" if packages is OLD else "newest"
    upstream = [f"flask-migrate=={version}"] if version else []
    folder = install_packages(f"{age}-{version or 'ours'}", *packages, *upstream)
    env = {"DATABASE_URL": f"sqlite:///{tmp_path}/x.db", "MIGRATE_SITE_PACKAGES": str(folder)}
    app = copy_app("shop")
    expected = {
        "upgrade": 0,
        "current": 0,
        # Upstream 3.1 does not have it.
        "check": 2 if version == "3.1.0" else 0,
        "upgrade nix": 9,
        "downgrade": 0,
    }
    found = {name: sidecar(app, "db", *name.split(), env=env) for name in expected}

    assert {name: result.returncode for name, result in found.items()} == expected
    assert all(read_last(result) for result in found.values())
    versions = find_events(found["upgrade"], "sidecar.started")[0]["versions"]
    ours = {"flask_migrate"} if version is None else set()
    assert {name for name, it in versions.items() if it["from"] != str(folder)} - ours == {"python"}
    for name in ("sqlalchemy", "alembic", "flask_sqlalchemy"):
        distribution = name.replace("_", "-")
        infos = (path.name for path in folder.glob("*.dist-info"))
        (info,) = (text for text in infos if re.match(f"(?i){name}-", text))
        assert versions[name]["distribution"] == distribution
        assert versions[name]["version"] == info.removesuffix(".dist-info").partition("-")[2]
    lacks = [event["lacks"] for event in find_events(found["upgrade"], "flask_migrate.upstream")]
    assert len(lacks) == (version is not None)
    if version:
        assert versions["flask_migrate"]["version"] == version
        assert ("check" in lacks[0]) is (version == "3.1.0")
        assert "upgrade --bind" in lacks[0]


@pytest.mark.parametrize(
    "statement",
    ["raise AssertionError('too old')", "raise SystemExit(0)", "from alembic import nothing_such"],
)
@pytest.mark.parametrize("package", ["sqlalchemy", "flask", "structlog"])
def test_package_that_cannot_be_imported(
    package: str, statement: str, tmp_path: Path, sidecar: "RunCommand"
) -> None:
    """A package of the application's that does not fit this Python is named, with its folder."""
    app = write_app(tmp_path / "app")
    (tmp_path / "packages" / package).mkdir(parents=True)
    (tmp_path / "packages" / package / "__init__.py").write_text(f"{statement}\n")

    result = sidecar(app, "--site-packages", f"{tmp_path}/packages", "db", "upgrade")

    last = read_last(result)
    assert (result.returncode, last["exit_code"]) == (3, 3)
    subject = re.escape(f"in {tmp_path}/packages/{package} cannot be imported: ")
    assert re.match(f"{package} .*{subject}", last["error"]["message"])


def test_path_file_that_ends_the_process(tmp_path: Path, sidecar: "RunCommand") -> None:
    """A `.pth` file that ends the process is no success of the run that it kept from beginning."""
    app = write_app(tmp_path / "app")
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "x.pth").write_text("import sys; sys.exit(0)\n")

    result = sidecar(app, "--site-packages", f"{tmp_path}/packages", "db", "upgrade")

    assert result.returncode == read_last(result)["exit_code"] == 3
    assert f"a .pth file in {tmp_path}/packages" in read_last(result)["error"]["message"]


def test_environment_beside_the_app_is_found(tmp_path: Path, sidecar: "RunCommand") -> None:
    """A `.venv` beside the application is searched first, without a word in the settings."""
    app = write_app(tmp_path / "app", "import only_in_venv\nassert only_in_venv.late")
    packages = app / ".venv" / "lib" / HERE / "site-packages"
    (tmp_path / "editable").mkdir()
    (tmp_path / "editable" / "only_in_venv.py").write_text("late = True\n")
    packages.mkdir(parents=True)
    (packages / "editable.pth").write_text(f"{tmp_path}/editable\n")
    env = {"DATABASE_URL": f"sqlite:///{tmp_path}/x.db"}

    result = sidecar(tmp_path, "--app-dir", "app", "db", "upgrade", env=env)

    assert read_last(result)["applied"] == ["a1"]
    assert read_log(result)[0]["site_packages"] == [str(packages)]


def test_first_folder_wins(tmp_path: Path, sidecar: "RunCommand") -> None:
    """Several folders are searched in their order, before what is installed here."""
    for number in (1, 2):
        (tmp_path / f"p{number}").mkdir()
        (tmp_path / f"p{number}" / "which.py").write_text(f"number = {number}\n")
        (tmp_path / f"p{number}" / "pymysql.py").write_text(f"number = {number}\n")
    body = "import which, pymysql\nassert (which.number, pymysql.number) == (2, 2)"
    app = write_app(tmp_path / "app", body)
    flags = [f"--site-packages={tmp_path}/p{number}" for number in (2, 1)]
    env = {"DATABASE_URL": f"sqlite:///{tmp_path}/x.db"}
    assert read_last(sidecar(app, *flags, "db", "upgrade", env=env))["exit_code"] == 0


@pytest.mark.parametrize(
    ("tag", "named"),
    [
        ("cp39-cp39-manylinux_2_17_x86_64", "python3.9"),
        ("cp399-abi3-manylinux_2_17_x86_64", "python3.99"),
        ("cp{minor}-cp{minor}-macosx_11_0_arm64", "macosx_11_0_arm64"),
        ("cp{minor}-cp{minor}-win_amd64", "win_amd64"),
        ("cp{minor}-cp{minor}-manylinux_2_17_s390x", "manylinux_2_17_s390x"),
        ("cp{minor}-cp{minor}-musllinux_1_2_x86_64", "musllinux_1_2_x86_64"),
    ],
)
@pytest.mark.skipif("gnu" not in str(sysconfig.get_config_var("SOABI")), reason="needs glibc")
def test_packages_of_another_platform(
    tag: str, named: str, tmp_path: Path, sidecar: "RunCommand"
) -> None:
    """Compiled packages for another Python, system, C library or processor are 3, with both."""
    app = write_app(tmp_path / "app")
    folder = add_package(tmp_path / "packages", "odd", tag.format(minor=f"3{sys.version_info[1]}"))
    add_package(folder, "plain", "py3-none-any")
    last = read_last(sidecar(app, "--site-packages", str(folder), "db", "upgrade"))
    assert last["exit_code"] == 3
    here = HERE if named.startswith("python") else sysconfig.get_platform().replace("-", "_")
    assert f"made for {named}, but this is {here}" in last["error"]["message"]
    assert "odd" in last["error"]["message"]


@pytest.mark.parametrize("where", ["beside", "named", "folder"])
def test_environment_of_another_python(where: str, tmp_path: Path, sidecar: "RunCommand") -> None:
    """An environment made for another Python is 3 with both versions, however it was found."""
    app = write_app(tmp_path / "app")
    environment = app / (".venv" if where == "beside" else "env")
    packages = environment / "lib" / "python3.99" / "site-packages"
    packages.mkdir(parents=True)
    given = {"named": [environment], "folder": [packages]}.get(where, [])
    flags = [f"--site-packages={path}" for path in given]
    last = read_last(sidecar(app, *flags, "db", "upgrade"))
    assert last["exit_code"] == 3
    assert "python3.99" in last["error"]["message"]
    assert HERE in last["error"]["message"]


def test_missing_folder(tmp_path: Path, sidecar: "RunCommand") -> None:
    """A folder that is not there is 3: the mount was forgotten."""
    app = write_app(tmp_path / "app")
    assert read_last(sidecar(app, "--site-packages=/nix", "db", "heads"))["exit_code"] == 3


def test_path_files_do_not_break_the_log(tmp_path: Path, sidecar: "RunCommand") -> None:
    """What a `.pth` file prints or raises, before there is a log, is told in the log."""
    app = write_app(tmp_path / "app")
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.pth").write_text("import nix_is_not_here\n")
    (tmp_path / "p" / "b.pth").write_text("import sys; print('from a path file')\n")
    env = {"DATABASE_URL": f"sqlite:///{tmp_path}/x.db"}
    result = sidecar(app, f"--site-packages={tmp_path}/p", "db", "upgrade", env=env)
    assert read_last(result)["exit_code"] == 0
    (complaint,) = find_events(result, "packages.complaint")
    text = "\n".join(complaint["lines"])
    assert "nix_is_not_here" in text
    assert "from a path file" in text


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
def test_driver_that_does_not_load(
    driver: str, tmp_path: Path, postgres15: Postgres, sidecar: "RunCommand"
) -> None:
    """A compiled driver of the app's without its C library gives way to ours, with a warning."""
    folder = tmp_path / "packages"
    shutil.copytree(PURELIB / driver, folder / driver)
    if driver == "psycopg":
        raising = "raise ImportError('no pq wrapper available')\n"
        (folder / "psycopg" / "pq" / "__init__.py").write_text(raising)
    app = write_app(tmp_path / "app", f"import {driver}\nprint({driver}.__file__)")
    env = {"DATABASE_URL": postgres15.create_database().url(driver)}
    result = sidecar(app, f"--site-packages={folder}", "db", "upgrade", env=env)
    assert read_last(result)["applied"] == ["a1"]
    assert [event["driver"] for event in find_events(result, "driver.replaced")] == [driver]
    (printed,) = find_events(result, "output")
    assert printed["text"].startswith(str(PURELIB))


def test_driver_that_nobody_has(tmp_path: Path, sidecar: "RunCommand") -> None:
    """Without a driver of ours to take its place, it is 3, and the reason is told."""
    folder = tmp_path / "packages" / "mariadb"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("from . import _mariadb\n")
    raising = "raise ImportError('no libmariadb', name='mariadb._mariadb')\n"
    (folder / "_mariadb.py").write_text(raising)
    app = write_app(tmp_path / "app")
    env = {"DATABASE_URL": "mysql+mariadbconnector://u:p@127.0.0.1:1/x"}
    last = read_last(sidecar(app, f"--site-packages={folder.parent}", "db", "upgrade", env=env))
    assert last["exit_code"] == 3
    assert "'mariadb'" in last["error"]["message"]
    assert "libmariadb" in last["error"]["message"]


@pytest.mark.parametrize("module", ["psycopg2cffi", "pg8000"])
def test_driver_that_is_missing(module: str, tmp_path: Path, sidecar: "RunCommand") -> None:
    """A driver that is not installed is 3, with its name."""
    app = write_app(tmp_path / "app")
    env = {"DATABASE_URL": f"postgresql+{module}://u:p@127.0.0.1:1/x"}
    last = read_last(sidecar(app, "db", "upgrade", env=env))
    assert last["exit_code"] == 3
    assert module in last["error"]["message"]


def make_environment(folder: Path, *installs: str) -> Path:
    """Make an environment that borrows what is installed here; return its Python."""
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "borrowed.pth").write_text(f"{PURELIB}\n")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps"]
    for requirement in installs:
        command = [*pip, "--no-build-isolation", "--ignore-installed", requirement]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return python


def run_with(python: Path, app: Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Upgrade with the Python of an environment."""
    return subprocess.run(
        [python, "-m", "flask_migrate_sidecar", "db", "upgrade"],
        cwd=app,
        env={**clean_environment(), **env},
        capture_output=True,
        text=True,
        check=False,
    )


def test_upstream_over_ours_is_named(tmp_path: Path) -> None:
    """Upstream's package installed over ours runs, and a warning names what pip has done."""
    python = make_environment(tmp_path / "env", str(PROJECT), "flask-migrate==4.1.0")
    app = write_app(tmp_path / "app")

    result = run_with(python, app, {"DATABASE_URL": f"sqlite:///{tmp_path}/x.db"})

    assert read_last(result)["applied"] == ["a1"]
    (warning,) = find_events(result, "flask_migrate.overwritten")
    assert warning["level"] == "warning"
    assert warning["flask_migrate"]["version"] == "4.1.0"
    started = read_log(result)[0]["versions"]["flask_migrate"]
    assert (started["distribution"], started["version"]) == ("flask-migrate", "4.1.0")


def test_ours_over_upstream_is_ours(tmp_path: Path) -> None:
    """Installed the other way round, ours runs and is named, though both are on record."""
    python = make_environment(tmp_path / "env", "flask-migrate==4.1.0", str(PROJECT))
    app = write_app(tmp_path / "app")

    result = run_with(python, app, {"DATABASE_URL": f"sqlite:///{tmp_path}/x.db"})

    assert read_last(result)["applied"] == ["a1"]
    events = {event["event"] for event in read_log(result)}
    assert not {event for event in events if event.startswith("flask_migrate.")}
    started = read_log(result)[0]["versions"]["flask_migrate"]
    assert started["distribution"] == "flask-migrate-sidecar"
