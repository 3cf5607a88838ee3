"""What a run says that it reached is what the databases hold, seen from a connection of its own."""

from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine, inspect

from app_code import write_app
from sidecar_runs import Launcher

STATEMENT = "connection.exec_driver_sql('SELECT 1')"
COMMITTED = f"{STATEMENT}; connection.commit()"


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """Return an application with one revision."""
    return write_app(tmp_path / "app")


def prepare(app: Path, statement: str) -> None:
    """Let `env.py` run a statement on its connection before it configures Alembic."""
    file = app / "migrations" / "env.py"
    text = file.read_text()
    before = "        context.configure(connection=connection"
    assert text.count(before) == 1
    file.write_text(text.replace(before, f"        {statement}\n{before}"))


def has_version(url: str) -> bool:
    """Tell whether the database has a revision in its version table."""
    engine = create_engine(url, poolclass=NullPool)
    if not inspect(engine).has_table("alembic_version"):
        return False
    with engine.connect() as connection:
        return bool(connection.exec_driver_sql("SELECT version_num FROM alembic_version").all())


@pytest.mark.parametrize("command", ["upgrade", "stamp head"])
def test_transaction_that_nobody_commits(
    command: str, database_url: str, app: Path, launch: Launcher
) -> None:
    """An `env.py` whose first statement begins a transaction of its own must commit it."""
    prepare(app, STATEMENT)
    result = launch(app, "db", *command.split(), env={"DATABASE_URL": database_url})
    assert result.returncode == result.last["exit_code"] == 8
    assert "was not committed in default" in result.last["error"]["message"]
    assert result.last["kept"] == []
    # Where DDL commits by itself the table may be there, whatever the version table says.
    stays = command == "upgrade" and not database_url.startswith("postgresql")
    assert result.last["rolled_back"] == ([] if stays else ["a1"])
    assert result.last.get("unfinished", []) == (["a1"] if stays else [])
    assert not has_version(database_url)


@pytest.mark.parametrize("command", ["upgrade", "stamp head"])
def test_transaction_that_is_committed(
    command: str, database_url: str, app: Path, launch: Launcher
) -> None:
    """One that commits what it began is none of our business."""
    prepare(app, COMMITTED)
    result = launch(app, "db", *command.split(), env={"DATABASE_URL": database_url})
    assert result.returncode == 0
    assert has_version(database_url)


def test_downgrade_that_nobody_commits(database_url: str, app: Path, launch: Launcher) -> None:
    """The way back is looked at as well."""
    env = {"DATABASE_URL": database_url}
    assert launch(app, "db", "upgrade", env=env).returncode == 0
    prepare(app, STATEMENT)
    assert launch(app, "db", "downgrade", "base", env=env).returncode == 8
    assert has_version(database_url)
