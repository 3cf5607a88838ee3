"""`--database-url` leads connections elsewhere, and leaves the rest of them as the app wants it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine, make_url, text

from conftest import RunCommand
from racing import write_app
from servers import Database, Server, render_url

# What the application asks of its connections, what the URL asks, and how a session shows it.
POSTGRESQL = (
    {"application_name": "shop", "options": "-cwork_mem=1234kB"},
    {"application_name": "elsewhere", "options": "-cwork_mem=4321kB"},
    "SELECT current_setting('application_name') || ' ' || current_setting('work_mem')",
    "shop 1234kB",
)
MARIADB = (
    {"init_command": "SET @said = 'shop'"},
    {"init_command": "SET @said = 'elsewhere'"},
    "SELECT @said",
    "shop",
)
CASES = {
    "psycopg": ("postgres", *POSTGRESQL),
    "psycopg2": ("postgres", *POSTGRESQL),
    "pymysql": ("mariadb", *MARIADB),
    "mysqldb": ("mariadb", *MARIADB),
}
NOTES = """\
    said = op.get_bind().exec_driver_sql({query!r}).scalar()
    op.execute(f"INSERT INTO ran (revision, direction) VALUES ('{{said}}', 'said')")
"""


@pytest.fixture
def server(driver: str, request: pytest.FixtureRequest) -> Server:
    """Return the server that a driver is for."""
    if driver == "mysqldb":
        pytest.importorskip("MySQLdb")
    found: Server = request.getfixturevalue(CASES[driver][0])
    return found


@pytest.fixture
def database(server: Server) -> Iterator[Database]:
    """Return a fresh database."""
    made = server.create_database()
    yield made
    server.drop_database(made.name)


@pytest.mark.parametrize("says_otherwise", [False, True], ids=["alone", "against the URL"])
@pytest.mark.parametrize("driver", CASES)
def test_arguments_of_the_app_stay(
    driver: str, says_otherwise: bool, database: Database, tmp_path: Path, sidecar: RunCommand
) -> None:
    """The application's connect_args are on the connection wherever it is led, and win."""
    _, arguments, others, query, expected = CASES[driver]
    app = write_app(tmp_path / "app", [NOTES.format(query=query)])
    source = (app / "app.py").read_text()
    options = f'app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {{"connect_args": {arguments!r}}}'
    (app / "app.py").write_text(
        source.replace("    db.init_app", f"    {options}\n    db.init_app")
    )
    target = make_url(database.url(driver))
    if says_otherwise:
        target = target.update_query_dict(others)
    nowhere = f"{target.drivername}://nobody:no@127.0.0.1:1/nowhere"

    elsewhere = ("--database-url", render_url(target))
    result = sidecar(app, *elsewhere, "db", "upgrade", env={"DATABASE_URL": nowhere})

    assert result.returncode == 0, result.stderr
    engine = create_engine(database.url(), poolclass=NullPool)
    with engine.connect() as connection:
        said = connection.execute(text("SELECT revision FROM ran WHERE direction = 'said'"))
        assert said.scalar_one() == expected


def test_bind_is_found_in_any_spelling(tmp_path: Path, sidecar: RunCommand) -> None:
    """The URL of a bind is found whatever case and dashes its name has in the application."""
    app = write_app(tmp_path / "app", [])
    source = (app / "app.py").read_text()
    (app / "app.py").write_text(source.replace('{"second":', '{"Read-Only":'))
    env = {
        "DATABASE_URL": f"sqlite:///{tmp_path}/main.db",
        "SECOND_URL": "sqlite:////no/folder/x.db",
        "MIGRATE_DATABASE_URL__READ_ONLY": f"sqlite:///{tmp_path}/second.db",
        "MIGRATE_REFUSED_GRACE": "0",
    }
    result = sidecar(app, "wait", "database", env=env)
    assert result.returncode == 0, result.stderr
    assert '"database": "Read-Only"' in result.stderr
