"""`--database-url` leads connections elsewhere, and leaves the rest of them as the app wants it."""

from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import NullPool, create_engine, inspect, make_url, text

from conftest import RunCommand
from flask_migrate_sidecar.database import connect as connecting
from flask_migrate_sidecar.database.redirect import check_place
from racing import write_app
from servers import Database, Server, render_url
from sidecar_runs import read_log

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
    "psycopg": POSTGRESQL,
    "psycopg2": POSTGRESQL,
    "pymysql": MARIADB,
    "mysqldb": MARIADB,
}
NOTES = """\
    said = op.get_bind().exec_driver_sql({query!r}).scalar()
    op.execute(f"INSERT INTO ran (revision, direction) VALUES ('{{said}}', 'said')")
"""


@pytest.mark.parametrize("says_otherwise", [False, True], ids=["alone", "against the URL"])
@pytest.mark.parametrize("driver", CASES)
def test_arguments_of_the_app_stay(
    driver: str, says_otherwise: bool, database: Database, tmp_path: Path, launch: RunCommand
) -> None:
    """The application's connect_args are on the connection wherever it is led, and win."""
    arguments, others, query, expected = CASES[driver]
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
    result = launch(app, *elsewhere, "db", "upgrade", env={"DATABASE_URL": nowhere})

    assert result.returncode == 0, result.stderr
    engine = create_engine(database.url(), poolclass=NullPool)
    with engine.connect() as connection:
        said = connection.execute(text("SELECT revision FROM ran WHERE direction = 'said'"))
        assert said.scalar_one() == expected


def configure(app: Path, text: str) -> None:
    """Put lines into the application's factory, before and behind its extensions' start."""
    source = (app / "app.py").read_text()
    (app / "app.py").write_text(source.replace("    db.init_app(app)\n", text))


def count_tables(url: str) -> int:
    """Count the tables of a database."""
    engine = create_engine(url, poolclass=NullPool)
    return len(inspect(engine).get_table_names())


# Where the application says itself where to connect.
LISTENER = """\
    db.init_app(app)
    from sqlalchemy import event

    with app.app_context():
        @event.listens_for(db.engine, "do_connect")
        def lead_back(dialect, record, args, parameters):
            own = dialect.create_connect_args(db.engine.url)
            args[:] = own[0]
            parameters.update(own[1])
"""
CREATOR = """\
    from sqlalchemy import create_engine
    other = create_engine(app.config["SQLALCHEMY_DATABASE_URI"])
    plain, named = other.dialect.create_connect_args(other.url)

    def create():
        return other.dialect.loaded_dbapi.connect(*plain, **named)

    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"creator": create}
    db.init_app(app)
"""
# It repeats what the URL says, under the names that the driver knows.
REPETITION = """\
    from sqlalchemy import make_url
    url = make_url(app.config["SQLALCHEMY_DATABASE_URI"])
    _, named = url.get_dialect()().create_connect_args(url)
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"connect_args": named}
    db.init_app(app)
"""


@pytest.mark.parametrize("command", [("db", "upgrade"), ("wait", "head"), ("db", "stamp", "head")])
@pytest.mark.parametrize("how", [LISTENER, CREATOR], ids=["listener", "creator"])
@pytest.mark.parametrize("driver", CASES)
def test_application_that_connects_elsewhere(
    driver: str,
    how: str,
    command: tuple[str, ...],
    server: Server,
    tmp_path: Path,
    launch: RunCommand,
) -> None:
    """What cannot be led to the URL that was given is refused, and nothing is written anywhere."""
    own, other = server.create_database(), server.create_database()
    app = write_app(tmp_path / "app", [])
    configure(app, how)
    env = {"DATABASE_URL": own.url(driver), "MIGRATE_HEAD_TIMEOUT": "5"}

    result = launch(app, "--database-url", other.url(driver), *command, env=env)

    last = read_log(result.stderr)[-1]
    assert result.returncode == last["exit_code"] == 3
    assert "connects to another database than the one that was given" in last["error"]["message"]
    assert own.name in last["error"]["message"]
    assert [count_tables(own.url()), count_tables(other.url())] == [0, 0]
    server.drop_database(own.name)
    server.drop_database(other.name)


@pytest.mark.parametrize("driver", CASES)
def test_server_behind_a_balancer(driver: str, server: Server) -> None:
    """A second connection that comes to another server of several is no other database."""
    own, other = server.create_database(), server.create_database()
    engines = {d: create_engine(d.url(driver), poolclass=NullPool) for d in (own, other)}
    turns = cycle([other, own])

    def connect() -> Any:
        engine = engines[next(turns)]
        plain, named = engine.dialect.create_connect_args(engine.url)
        return engine.dialect.loaded_dbapi.connect(*plain, **named)

    balanced = create_engine(own.url(driver), creator=connect)
    target = connecting.Database("default", make_url(own.url(driver)), source=balanced)
    with engines[own].connect() as connection:
        check_place(connection, target, 5)
        # A transaction that is open is one that Alembic leaves alone.
        assert not connection.in_transaction()
    server.drop_database(own.name)
    server.drop_database(other.name)


@pytest.mark.parametrize("driver", CASES)
def test_arguments_that_repeat_the_place(
    driver: str, server: Server, tmp_path: Path, launch: RunCommand
) -> None:
    """Arguments that say once more where the application connects do not lead back there."""
    own, other = server.create_database(), server.create_database()
    app = write_app(tmp_path / "app", [])
    configure(app, REPETITION)
    nowhere = make_url(own.url(driver)).set(port=1, password="other")
    env = {"DATABASE_URL": render_url(nowhere)}

    result = launch(app, "--database-url", other.url(driver), "db", "upgrade", env=env)

    assert result.returncode == 0, result.stderr
    assert [count_tables(own.url()), count_tables(other.url())] == [0, 2]
    server.drop_database(own.name)
    server.drop_database(other.name)


@pytest.mark.parametrize("how", [LISTENER, CREATOR], ids=["listener", "creator"])
def test_application_that_opens_another_file(how: str, tmp_path: Path, launch: RunCommand) -> None:
    """On SQLite it is the file that is open which counts, whatever the engine's URL says."""
    app = write_app(tmp_path / "app", [])
    configure(app, how)
    env = {"DATABASE_URL": f"sqlite:///{tmp_path}/own.db"}

    result = launch(app, "--database-url", f"sqlite:///{tmp_path}/x.db", "db", "upgrade", env=env)

    assert result.returncode == 3
    assert f"'{tmp_path}/own.db' is not '{tmp_path}/x.db'" in result.stderr
    assert [count_tables(f"sqlite:///{tmp_path}/{name}.db") for name in ("own", "x")] == [0, 0]


def tables_of(folder: Path) -> dict[str, set[str]]:
    """Give the tables in each SQLite file of a folder, those of migrations aside."""
    found = {}
    for path in folder.glob("*.db"):
        engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)
        found[path.stem] = {*inspect(engine).get_table_names()} - {"alembic_version"}
    return found


def test_urls_that_follow_one_another(
    tmp_path: Path, copy_app: Callable[[str], Path], launch: RunCommand
) -> None:
    """The main database goes to where a bind was: it is led once, and no further with the bind."""
    env = {
        "DATABASE_URL": f"sqlite:///{tmp_path}/one.db",
        "USERS_DATABASE_URL": f"sqlite:///{tmp_path}/two.db",
        "AUDIT_DATABASE_URL": f"sqlite:///{tmp_path}/audit.db",
    }
    words = ["--database-url", f"sqlite:///{tmp_path}/two.db"]
    words += ["--bind-url", f"users=sqlite:///{tmp_path}/three.db"]

    result = launch(copy_app("multidb"), *words, "db", "upgrade", env=env)

    assert result.returncode == 0, result.stderr
    found = tables_of(tmp_path)
    assert found.keys() == {"two", "three", "audit"}
    assert "note" in found["two"]
    assert "account" in found["three"]


def test_urls_that_are_one(
    tmp_path: Path, copy_app: Callable[[str], Path], launch: RunCommand
) -> None:
    """A main database and a bind share a file, and the bind is led away: the other one stays."""
    env = {
        "DATABASE_URL": f"sqlite:///{tmp_path}/one.db",
        "USERS_DATABASE_URL": f"sqlite:///{tmp_path}/one.db",
        "AUDIT_DATABASE_URL": f"sqlite:///{tmp_path}/audit.db",
    }
    words = ("--bind-url", f"users=sqlite:///{tmp_path}/three.db")

    result = launch(copy_app("multidb"), *words, "db", "upgrade", env=env)

    assert result.returncode == 0, result.stderr
    found = tables_of(tmp_path)
    assert "note" in found["one"]
    assert "account" not in found["one"]
    assert "account" in found["three"]


def test_url_that_may_mean_two(tmp_path: Path, launch: RunCommand) -> None:
    """An `env.py` that makes an engine from a URL which two databases have is refused."""
    app = write_app(tmp_path / "app", [])
    environment = app / "migrations" / "env.py"
    text = "from sqlalchemy import create_engine\nfrom flask import current_app\n"
    text += "from alembic import context\n"
    text += "engine = create_engine(current_app.config['SQLALCHEMY_DATABASE_URI'])\n"
    text += "with engine.connect() as connection:\n    context.configure(connection)\n"
    text += "    with context.begin_transaction():\n        context.run_migrations()\n"
    environment.write_text(text)
    env = dict.fromkeys(("DATABASE_URL", "SECOND_URL"), f"sqlite:///{tmp_path}/one.db")
    words = ("--bind-url", f"second=sqlite:///{tmp_path}/two.db")

    result = launch(app, *words, "db", "upgrade", env=env)

    assert result.returncode == 3
    assert "several databases of the application have one URL" in result.stderr
    assert tables_of(tmp_path).get("one", set()) == set()


def test_bind_is_found_in_any_spelling(tmp_path: Path, launch: RunCommand) -> None:
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
    result = launch(app, "wait", "database", env=env)
    assert result.returncode == 0, result.stderr
    assert '"database": "Read-Only"' in result.stderr
