"""One version, written in pyproject.toml; package, image, chart and examples follow it."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "flask-migrate-sidecar"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]

# Where else it stands, each with how often at least.
PLACES = [
    (ROOT / "Dockerfile", r"^ARG VERSION=(\S+)", 1),
    (CHART / "Chart.yaml", r'^(?:version|appVersion): "?([^"\s]+)', 2),
    (CHART / "examples/podman/pod.yaml", r"image: flask-migrate-sidecar:(\S+)", 1),
    (CHART / "examples/argocd/application.yaml", r"targetRevision: (\S+)", 1),
    (CHART / "examples/flux/helmrelease.yaml", r"^ +tag: (\S+)", 1),
    (CHART / "examples/gitlab/.gitlab-ci.yml", r"--version (\S+)", 1),
    (CHART / "examples/plain/manifests.yaml", r"image: flask-migrate-sidecar:(\S+)", 2),
    (CHART / "examples/plain/manifests.yaml", r"app.kubernetes.io/version: (\S+)", 2),
    (CHART / "examples/plain/manifests.yaml", r"chart: flask-migrate-sidecar-(\S+)", 2),
]


@pytest.mark.parametrize(("path", "pattern", "least"), PLACES, ids=lambda value: str(value)[-30:])
def test_every_place_has_the_version(path: Path, pattern: str, least: int) -> None:
    """A release changes one line; what else names the version must agree."""
    found = re.findall(pattern, path.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(found) >= least
    assert {*found} == {VERSION}


def test_package_says_the_version(tmp_path: Path) -> None:
    """`--version` is that of the metadata, which the build took from pyproject.toml."""
    command = [sys.executable, "-m", "flask_migrate_sidecar", "--version"]
    # Elsewhere than in the checkout, whose .venv may be another Python's.
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    said = done.stdout
    assert said.startswith(f"flask-migrate-sidecar {VERSION} (")


def test_no_module_repeats_the_version() -> None:
    """The code has no copy that a release could forget."""
    modules = (ROOT / "src").rglob("*.py")
    assert not [path for path in modules if f'"{VERSION}"' in path.read_text(encoding="utf-8")]
