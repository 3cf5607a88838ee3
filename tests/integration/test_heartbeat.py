"""`migration.running`, whichever driver the migration sits in."""

from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine, make_url, text

from following import FollowedRun
from racing import write_app
from servers import Server, render_url


@pytest.mark.parametrize(
    ("server_name", "driver"),
    [
        ("postgres", "psycopg"),
        ("postgres", "psycopg2"),
        ("mariadb", "pymysql"),
        ("mariadb", "mysqldb"),
    ],
)
def test_blocker_is_named_with_each_driver(
    tmp_path: Path, server_name: str, driver: str, request: pytest.FixtureRequest
) -> None:
    """Who blocks a revision is told, though no other thread may use the driver's connection."""
    if driver == "mysqldb":
        pytest.importorskip("MySQLdb")
    server: Server = request.getfixturevalue(server_name)
    # On MariaDB only a role that may see all processes learns who blocks.
    location = make_url(server.admin_url).set(database=server.create_database().name)
    dialect = location.get_backend_name()
    env = {"DATABASE_URL": render_url(location.set(drivername=f"{dialect}+{driver}"))}
    app = write_app(tmp_path / "app", ["    op.add_column('ran', sa.Column('x', sa.Integer))"])
    with FollowedRun(app, "db", "upgrade", "r1", env=env) as first:
        assert first.finish() == 0, first.last

    engine = create_engine(render_url(location), poolclass=NullPool)
    with engine.connect() as other:
        other.execute(text("INSERT INTO ran (revision) VALUES ('other')"))
        with FollowedRun(app, "--heartbeat", "1", "db", "upgrade", env=env) as run:
            running = run.await_event("migration.running")
            other.rollback()
            assert run.finish() == 0, run.last

    assert running["revision"] == "r2"
    assert "lock" in running["waits_for"].lower()
    assert len(running["blocked_by"]) == 1
