"""Servers, databases and programs that the tests run for real."""

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import pytest

# In pytest's importlib mode no test folder is on the path; servers.py stands beside this file.
sys.path.insert(0, str(Path(__file__).parent))

from following import FOLLOWED
from servers import (
    DRIVERS,
    Database,
    MariaDB,
    MissingServerError,
    PgBouncer,
    Postgres,
    Server,
    postgres15_programs,
    postgres18_programs,
)
from sidecar_runs import Launcher
from zygote import STARTED, close_zygotes

T = TypeVar("T", bound=Server)

APPS = Path(__file__).parent / "apps"
# All that a test run takes over from its shell. What else may stand there (FLASK_DEBUG, PGHOST,
# PYTHONUNBUFFERED, NO_COLOR, LANG) steers programs, drivers or streams.
TAKEN_OVER = (
    *("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH"),
    "PYTHONPATH",  # a copy of the tree that the tests are run on (tests/mutants)
    *("CI", "PYTEST_", "COV", "SIDECAR_TEST_"),
    # For pip, and for what the container, chart and cluster tests run.
    *("PIP_", "SSL_CERT_", "REQUESTS_CA_", "HTTP", "http", "NO_PROXY", "no_proxy"),
    *("DOCKER_", "BUILDKIT_", "KUBE", "HELM", "CLUSTER_", "BASE_IMAGE"),
)

# Tests of these folders build images or start clusters; the others end within the usual limit.
SLOW_TIERS = {"container", "chart", "cluster"}
SLOW_SECONDS = 3600


class Run(Protocol):
    """Runs a program to its end."""

    def __call__(
        self,
        command: Sequence[str | Path],
        *,
        cwd: Path,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Return its exit code, stdout and stderr; a failure is the test's to judge."""


class RunCommand(Protocol):
    """Runs one of the project's own commands."""

    def __call__(
        self,
        cwd: Path,
        *arguments: str,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Return its exit code, stdout and stderr; a failure is the test's to judge."""


@pytest.fixture(scope="session")
def postgres15() -> Iterator[Postgres]:
    """Run the distribution's PostgreSQL."""
    yield from serve(lambda: Postgres(postgres15_programs()))


@pytest.fixture(scope="session")
def postgres18() -> Iterator[Postgres]:
    """Run PostgreSQL 18."""
    yield from serve(lambda: Postgres(postgres18_programs()))


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> Postgres:
    """Return the newest PostgreSQL that the machine has."""
    try:
        postgres18_programs()
    except MissingServerError:
        return _fixture(request, "postgres15", Postgres)
    return _fixture(request, "postgres18", Postgres)


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    """Run MariaDB."""
    yield from serve(MariaDB)


@pytest.fixture(scope="session")
def pgbouncer(postgres: Postgres) -> Iterator[PgBouncer]:
    """Run PgBouncer in transaction pooling before the `postgres` server."""
    yield from serve(lambda: PgBouncer(postgres))


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def dialect(request: pytest.FixtureRequest) -> str:
    """Run the test once on each kind of database."""
    return str(request.param)


@pytest.fixture
def create_database_url(
    dialect: str, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Callable[[], str]]:
    """Return a function that makes a fresh empty database at each call."""
    if dialect == "sqlite":
        folder = tmp_path / "databases"
        folder.mkdir()
        names = itertools.count()
        yield lambda: f"sqlite:///{folder / f'test_{next(names)}.db'}"
        return
    server: Server
    if dialect == "postgresql":
        server = _fixture(request, "postgres", Postgres)
    else:
        server = _fixture(request, "mariadb", MariaDB)
    made: list[Database] = []

    def create() -> str:
        made.append(server.create_database())
        return made[-1].url()

    yield create
    for database in made:
        server.drop_database(database.name)


@pytest.fixture
def database_url(create_database_url: Callable[[], str]) -> str:
    """Return the URL of a fresh empty database, on each kind of database in turn."""
    return create_database_url()


@pytest.fixture
def copy_app(tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that copies an example app, so that no test writes into the tree."""
    ignore = shutil.ignore_patterns("__pycache__", "instance", "*.db")
    return lambda name: Path(shutil.copytree(APPS / name, tmp_path / name, ignore=ignore))


@pytest.fixture(scope="session")
def run() -> Run:
    """Return a function that runs a program in an environment free of the caller's settings."""

    def run(
        command: Sequence[str | Path],
        *,
        cwd: Path,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=cwd,
            env={**clean_environment(), **(env or {})},
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )

    return run


@pytest.fixture(scope="session")
def flask_db(tmp_path_factory: pytest.TempPathFactory) -> RunCommand:
    """Return a function that runs `flask db ...` in the folder of an app."""
    launcher = Launcher(tmp_path_factory.mktemp("outputs"), "flask")
    return lambda cwd, *arguments, env=None: launcher(cwd, "db", *arguments, env=env)


@pytest.fixture(scope="session")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Launcher:
    """Return a quick way to run `flask-migrate ...`, for what does not care how Python starts."""
    return Launcher(tmp_path_factory.mktemp("outputs"))


@pytest.fixture(scope="session")
def sidecar(run: Run) -> RunCommand:
    """Return a function that runs `flask-migrate ...` in an interpreter of its own."""

    def run_sidecar(
        cwd: Path, *arguments: str, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return run([sys.executable, "-m", "flask_migrate_sidecar", *arguments], cwd=cwd, env=env)

    return run_sidecar


@pytest.fixture(scope="session", autouse=True)
def _leave_no_interpreter() -> Iterator[None]:
    """End the interpreters that the tests share."""
    yield
    close_zygotes()


# What a test says where it cannot hold for what is installed, whatever the machine has.
CANNOT_HOLD = (
    "Flask-SQLAlchemy-Lite needs Flask 3",
    "Alembic reads pyproject.toml from 1.16 on",
    "this Alembic has no",
    "no cluster",
)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail what skips where `CI` is set: there, nothing may be missing."""
    report = yield
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[-1] if isinstance(report.longrepr, tuple) else "")
        if not any(allowed in reason for allowed in CANNOT_HOLD):
            report.outcome, report.longrepr = "failed", f"with CI set, nothing may skip: {reason}"
    return report


def clean_environment() -> dict[str, str]:
    """Return the environment that programs under test get: none of what the shell had set."""
    return dict(os.environ)


@pytest.fixture(autouse=True)
def _leave_no_run() -> Iterator[None]:
    """End what a test started and did not wait for, as it is when an assertion failed before."""
    yield
    while FOLLOWED:
        FOLLOWED.pop().close()
    while STARTED:
        STARTED.pop().close()


def pytest_sessionstart() -> None:
    """Free the test run from what its shell had set, once pytest itself has read it."""
    for name in [*os.environ]:
        if not name.startswith(TAKEN_OVER) and not name.endswith("_IMAGE"):
            del os.environ[name]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give more time to what builds images, and to what counts to thirty."""
    for item in items:
        if item.path.parent.name in SLOW_TIERS or item.get_closest_marker("endurance"):
            item.add_marker(pytest.mark.timeout(SLOW_SECONDS))


@pytest.fixture
def server(driver: str, request: pytest.FixtureRequest) -> Server:
    """Return the server that a test's driver is for."""
    if driver == "mysqldb":
        pytest.importorskip("MySQLdb")
    found: Server = request.getfixturevalue(DRIVERS[driver])
    return found


@pytest.fixture
def database(server: Server) -> Iterator[Database]:
    """Return a fresh database of that server."""
    made = server.create_database()
    yield made
    server.drop_database(made.name)


def serve(make: Callable[[], T]) -> Iterator[T]:
    """Run a server that a function makes; where the machine lacks it, skip or fail."""
    try:
        server = make()
    except MissingServerError as error:
        # In CI a server that was not installed would otherwise turn tests off unseen.
        outcome = pytest.fail if os.environ.get("CI") else pytest.skip
        outcome(str(error))
    with server:
        yield server


def _fixture(request: pytest.FixtureRequest, name: str, kind: type[T]) -> T:
    """Start only the server that the test's parameter asks for."""
    server = request.getfixturevalue(name)
    assert isinstance(server, kind)
    return server
