"""Fixtures of the container tests, a plugin because mypy takes one conftest.py only."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine, make_url, text

from containers import Engine, Images, Sidecar
from servers import MissingServerError

# The word is not in these statements: they would find themselves.
_SLEEPING = {
    "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE state = 'active'"
    " AND datname = :database AND query LIKE '%pg_' || 'sleep%'",
    "mysql": "SELECT count(*) FROM information_schema.processlist"
    " WHERE db = :database AND info LIKE CONCAT('%SLE', 'EP%')",
}
FIGURES: dict[str, str] = {}


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """Run a Docker engine."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        pytest.fail("one engine is for one process: run the container tests with -n 0")
    with _missing_skips():
        engine = Engine()
        engine.start()
    yield engine
    engine.stop()


@pytest.fixture(scope="session")
def images(engine: Engine) -> Iterator[Images]:
    """Give the images, built when a test asks for them."""
    images = Images(engine)
    with _missing_skips():
        FIGURES["base image"] = images.base
    yield images
    FIGURES["seconds to build"] = ", ".join(
        f"{name} {seconds:.0f}" for name, seconds in images.build_seconds.items()
    )


@pytest.fixture(scope="session")
def image(images: Images) -> Sidecar:
    """Give the image under test, ready to run."""
    return Sidecar(images.engine, images.sidecar)


@pytest.fixture
def open_folder(tmp_path: Path) -> Path:
    """Return a folder in which any user of a container may write."""
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


@pytest.fixture
def is_sleeping() -> Callable[[str], bool]:
    """Return a function that tells whether a session of a database runs a statement that sleeps."""

    def is_sleeping(url: str) -> bool:
        location = make_url(url)
        statement = _SLEEPING[location.get_backend_name()]
        with create_engine(location, poolclass=NullPool).connect() as connection:
            found = connection.execute(text(statement), {"database": location.database})
            return bool(found.scalar_one())

    return is_sleeping


@pytest.fixture
def figure() -> Callable[[str, str], None]:
    """Return a function that notes a measured value for the end of the test run."""
    return FIGURES.__setitem__


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what was measured."""
    if FIGURES:
        terminalreporter.section("figures")
    for name, value in FIGURES.items():
        terminalreporter.write_line(f"{name}: {value}")


@contextmanager
def _missing_skips() -> Iterator[None]:
    """Skip where the machine lacks a part, but not in CI, where nobody would see it."""
    try:
        yield
    except MissingServerError as error:
        outcome = pytest.fail if os.environ.get("CI") else pytest.skip
        outcome(str(error))
