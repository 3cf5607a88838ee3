"""A revision that lacks a right, or a lock in the database: each has its exit code."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine, make_url, text

from conftest import RunCommand
from following import FollowedRun
from racing import write_app
from servers import DRIVERS, PASSWORD, USER, Database, Server, render_url

ROLE = "may_not_create"
CREATES = '    op.create_table("more", sa.Column("id", sa.Integer))'
ALTERS = '    op.add_column("ran", sa.Column("more", sa.Integer))'
UPDATES = "    op.execute(\"UPDATE ran SET direction = 'x'\")"
POSTGRESQL = ("psycopg", "psycopg2")

each_driver = pytest.mark.parametrize("driver", DRIVERS)


@pytest.fixture
def upgrade_first(tmp_path: Path, database: Database, launch: RunCommand) -> Callable[[str], Path]:
    """Return a function that writes an application and runs its first revision."""

    def upgrade(body: str) -> Path:
        app = write_app(tmp_path / "app", [body])
        done = launch(app, "db", "upgrade", "r1", env={"DATABASE_URL": database.url()})
        assert done.returncode == 0, done.stderr
        return app

    return upgrade


def make_role(server: Server, driver: str, database: str) -> None:
    """Make a role that reads and writes the tables that are there, and makes no others."""
    if driver not in POSTGRESQL:
        rights = "SELECT, INSERT, UPDATE, DELETE"
        server.execute(
            f"CREATE USER IF NOT EXISTS {ROLE}@'%' IDENTIFIED BY '{PASSWORD}'",
            f"GRANT {rights} ON `{database}`.* TO {ROLE}@'%'",
        )
        return
    server.execute(
        f"DO $$ BEGIN CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}';"
        " EXCEPTION WHEN duplicate_object THEN NULL; END $$",
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {ROLE}",
        database=database,
    )


@each_driver
def test_missing_right_is_a_refusal(
    server: Server, driver: str, database: Database, upgrade_first: Callable[[str], Path]
) -> None:
    """A revision that the role may not run ends with 6, and says whose right is missing."""
    app = upgrade_first(CREATES)
    make_role(server, driver, database.name)
    url = render_url(make_url(database.url(driver)).set(username=ROLE))
    with FollowedRun(app, "db", "upgrade", env={"DATABASE_URL": url}) as run:
        assert run.finish() == 6, run.last
    last = run.last
    assert (last["error"]["type"], last["revision"]) == ("RefusedError", "r2"), last
    assert "grant the role" in last["hint"]
    assert "denied" in last["error"]["message"]


def limit(server: Server, driver: str, database: Database, seconds: int) -> str:
    """Give a URL whose sessions wait so long for a lock."""
    url = make_url(database.url(driver))
    if driver == "psycopg":
        return render_url(url.update_query_dict({"options": f"-clock_timeout={seconds}s"}))
    if driver == "psycopg2":
        name = f'"{database.name}"'
        server.execute(f"ALTER ROLE {USER} IN DATABASE {name} SET lock_timeout = '{seconds}s'")
        return render_url(url)
    both = f"SET SESSION lock_wait_timeout={seconds}, innodb_lock_wait_timeout={seconds}"
    return render_url(url.update_query_dict({"init_command": both}))


@each_driver
@pytest.mark.parametrize("body", [ALTERS, UPDATES], ids=["table", "row"])
def test_lock_in_the_database_is_code_7(
    server: Server,
    driver: str,
    body: str,
    database: Database,
    upgrade_first: Callable[[str], Path],
) -> None:
    """A revision that another session keeps waiting past the server's limit ends with 7."""
    app = upgrade_first(body)
    url = limit(server, driver, database, 1)
    engine = create_engine(database.url(), poolclass=NullPool)
    with engine.connect() as other:
        other.execute(text("UPDATE ran SET direction = 'other'"))
        with FollowedRun(app, "db", "upgrade", env={"DATABASE_URL": url}) as run:
            assert run.finish() == 7, run.last
        other.rollback()
    last = run.last
    assert (last["error"]["type"], last["revision"]) == ("LockedError", "r2"), last
    assert "another session" in last["hint"]
    # Nothing was done, and so nothing is in the way of the next try.
    with FollowedRun(app, "db", "upgrade", env={"DATABASE_URL": url}) as again:
        assert again.finish() == 0, again.last
