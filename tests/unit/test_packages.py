"""The application's own packages come first on the path."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flask_migrate_sidecar.application.site_packages import add_site_packages
from flask_migrate_sidecar.errors import ConfigurationError

HERE = f"python{sys.version_info.major}.{sys.version_info.minor}"
PROGRAM = """
import json, sys
from pathlib import Path
from flask_migrate_sidecar.application.site_packages import add_site_packages

add_site_packages(sys.argv[2:], beside=Path(sys.argv[1]))
print(json.dumps(sys.path))
"""


def path_with(beside: Path, *folders: Path) -> list[str]:
    """Return `sys.path` of a process of its own, after the packages were added."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, beside, *folders],
        capture_output=True,
        text=True,
        check=True,
    )
    path: list[str] = json.loads(done.stdout)
    return path


def make_environment(folder: Path, version: str = HERE) -> Path:
    """Make a virtual environment's folders; return its packages."""
    packages = folder / "lib" / version / "site-packages"
    packages.mkdir(parents=True)
    return packages


def test_environment_beside_the_app(tmp_path: Path) -> None:
    """A `.venv` beside the app is found, and searched before all that is installed here."""
    packages = make_environment(tmp_path / ".venv")
    path = path_with(tmp_path)
    assert path[0] == str(packages)
    assert path.count(str(packages)) == 1


def test_given_folder_wins(tmp_path: Path) -> None:
    """A folder that is named replaces the `.venv`; a virtual environment may be named too."""
    hidden = make_environment(tmp_path / ".venv")
    named = make_environment(tmp_path / "other")
    for folder in (named, tmp_path / "other"):
        path = path_with(tmp_path, folder)
        assert path[0] == str(named)
        assert str(hidden) not in path


def test_editable_installs_come_first_too(tmp_path: Path) -> None:
    """What a `.pth` file names is searched before ours."""
    packages, source = make_environment(tmp_path / ".venv"), tmp_path / "source"
    source.mkdir()
    (packages / "app.pth").write_text(f"{source}\n", encoding="utf-8")
    assert path_with(tmp_path)[:2] == [str(packages), str(source)]


def test_nothing_to_add(tmp_path: Path) -> None:
    """Without an environment of the app's the path stays as it is."""
    assert not [entry for entry in path_with(tmp_path) if entry.startswith(str(tmp_path))]


def test_missing_folder(tmp_path: Path) -> None:
    """A folder that does not exist is an error, with what to check."""
    with pytest.raises(ConfigurationError, match="there is no such folder"):
        add_site_packages([str(tmp_path / "none")], beside=tmp_path)


def test_foreign_environment(tmp_path: Path) -> None:
    """Packages of another Python are refused before they fail in odd ways."""
    packages = make_environment(tmp_path / "env", "python3.7")
    for folder in (packages, tmp_path / "env"):
        with pytest.raises(ConfigurationError, match=r"python3\.7"):
            add_site_packages([str(folder)], beside=tmp_path)
