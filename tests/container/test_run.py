"""What `docker run` does with an application, on every database."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import URL, NullPool, create_engine, inspect, make_url

from containers import Sidecar
from racing import write_app
from sidecar_runs import Result

pytestmark = pytest.mark.container
pytest_plugins = ["container_fixtures"]

SHOP = Path(__file__).parents[1] / "apps" / "shop"
HEAD = "6b92f4ec08d1"


@pytest.fixture
def url(dialect: str, create_database_url: Callable[[], str], open_folder: Path) -> str:
    """Return the URL of an empty database that a container can reach: SQLite's is in a volume."""
    return f"sqlite:///{open_folder}/shop.db" if dialect == "sqlite" else create_database_url()


def succeed(result: Result) -> Result:
    """Give back a good run; show the log of a bad one."""
    assert result.returncode == 0, result.stderr
    return result


def read_tables(url: str | URL) -> set[str]:
    """List the tables of a database, as this machine sees it; looking makes no SQLite file."""
    location = make_url(url)
    if location.get_backend_name() == "sqlite" and not Path(str(location.database)).exists():
        return set()
    return set(inspect(create_engine(url, poolclass=NullPool)).get_table_names())


def test_a_mounted_application_is_upgraded(image: Sidecar, url: str, open_folder: Path) -> None:
    """`docker run -v APP:/app:ro IMAGE db upgrade` is all it takes, and the group tells of it."""
    mounts: dict[Path, str] = {SHOP: "/app:ro", open_folder: str(open_folder)}

    def run(*arguments: str) -> Result:
        return succeed(image.run("db", *arguments, env={"DATABASE_URL": url}, mounts=mounts))

    # Further on, SQLite's batches need a live table to read (Alembic, "Batch mode").
    sql = run("upgrade", "8d02b6f5a913", "--sql").stdout
    assert "CREATE TABLE product" in sql
    assert read_tables(url) == set()
    last = run("upgrade").last
    assert last["event"] == "command.finished"
    assert {"product", "orders", "daily_sales", "alembic_version"} <= read_tables(url)
    assert HEAD in run("current").stdout
    assert HEAD in run("history").stdout
    assert f"Rev: {HEAD} (head)" in run("heads", "--verbose").stdout


def test_migrations_alone_are_enough(image: Sidecar, url: str, open_folder: Path) -> None:
    """With nothing mounted but the migration folder, a database URL is all that is asked for."""
    result = image.run(
        *("db", "upgrade"),
        env={"MIGRATE_DATABASE_URL": url},
        mounts={SHOP / "migrations": "/app/migrations:ro", open_folder: str(open_folder)},
    )
    succeed(result)
    [loaded] = [line for line in result.log if line["event"] == "app.loaded"]
    assert "migrations-only" in json.dumps(loaded)
    assert "product" in read_tables(url)


@pytest.mark.parametrize("dialect", ["postgresql"])
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_both_drivers_of_postgresql_are_inside(image: Sidecar, url: str, driver: str) -> None:
    """Some histories run with psycopg2 only, new applications have psycopg 3."""
    location = make_url(url).set(drivername=f"postgresql+{driver}")
    env = {"DATABASE_URL": location.render_as_string(hide_password=False)}
    succeed(image.run("db", "upgrade", env=env, mounts={SHOP: "/app:ro"}))


def test_any_user_in_an_empty_network_and_a_read_only_system_is_enough(
    image: Sidecar, open_folder: Path
) -> None:
    """Group 0, no capability, no network, no home, nothing writable but the database's volume."""
    open_folder.chmod(0o770)
    result = image.run(
        *("db", "upgrade"),
        env={"DATABASE_URL": "sqlite:////data/shop.db"},
        mounts={SHOP: "/app:ro", open_folder: "/data"},
        more=["--user", "12345:0"],
        network="none",
    )
    succeed(result)
    database = open_folder / "shop.db"
    assert database.stat().st_uid == 12345
    assert "product" in read_tables(f"sqlite:///{database}")


def test_no_shell_is_needed(image: Sidecar, open_folder: Path) -> None:
    """The entrypoint runs where there is no shell, as in images cut down further."""
    nothing = open_folder / "nothing"
    nothing.touch()
    more = [f"--volume={nothing}:/usr/bin/{shell}:ro" for shell in ("dash", "bash")]
    shell = image.run("-c", "true", more=[*more, "--entrypoint", "sh"])
    assert shell.returncode in {126, 127}
    env = {"DATABASE_URL": "sqlite:////tmp/shop.db"}
    succeed(image.run("db", "heads", env=env, mounts={SHOP: "/app:ro"}, more=more))


def test_orphans_are_reaped(image: Sidecar, open_folder: Path) -> None:
    """Process 1 of a container inherits what its children leave, and waits for it."""
    body = """
    import subprocess, sys
    from pathlib import Path
    leave = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', '']).pid)"
    orphan = subprocess.run([sys.executable, "-c", leave], stdout=-1, text=True).stdout.strip()
    deadline = time.monotonic() + 10
    while (status := Path("/proc", orphan, "status")).exists():
        if time.monotonic() > deadline:
            raise RuntimeError(status.read_text())
        time.sleep(0.01)
"""
    app = write_app(open_folder / "app", [body])
    env = {"DATABASE_URL": "sqlite:////data/shop.db"}
    succeed(image.run("db", "upgrade", env=env, mounts={app: "/app:ro", open_folder: "/data"}))
