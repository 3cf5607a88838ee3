"""Where the application can connect, the run can: it waits, locks and looks as the app connects."""

from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine, inspect, make_url

from conftest import RunCommand
from racing import write_app
from servers import DRIVERS, Database, Server, render_url
from sidecar_runs import events, prepend, read_log

# The password is not in the URL that the application's settings have; GIVEN stands for it.
TOKEN = """\
    db.init_app(app)
    from sqlalchemy import event

    with app.app_context():
        @event.listens_for(db.engine, "do_connect")
        def fetch_token(dialect, record, args, parameters):
            parameters["password"] = os.environ["GIVEN"]
"""
CREATOR = """\
    from sqlalchemy import create_engine, make_url
    url = make_url(os.environ["DATABASE_URL"]).set(password=os.environ["GIVEN"])
    other = create_engine(url)
    plain, named = other.dialect.create_connect_args(url)

    def create():
        return other.dialect.loaded_dbapi.connect(*plain, **named)

    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"creator": create}
    db.init_app(app)
"""
CONSTRUCTOR = """\
    db._engine_options["connect_args"] = {"password": os.environ["GIVEN"]}
    db.init_app(app)
"""
SETTINGS = """\
    arguments = {"password": os.environ["GIVEN"]}
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"connect_args": arguments}
    db.init_app(app)
"""
# A pool of one connection, which the application has taken for itself and given back.
SMALL_POOL = """\
    arguments = {"password": os.environ["GIVEN"]}
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {
        "connect_args": arguments, "pool_size": 1, "max_overflow": 0, "pool_timeout": 1
    }
    db.init_app(app)
    with app.app_context():
        db.engine.connect().close()
"""
# No variable that a password is looked for in.
PRINTS = "    import os\n    print('logged in with', os.environ['GIVEN'])"
WAYS = {
    "token": TOKEN,
    "creator": CREATOR,
    "constructor": CONSTRUCTOR,
    "settings": SETTINGS,
    "small pool": SMALL_POOL,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("driver", DRIVERS)
def test_application_that_logs_in_by_itself(
    way: str, driver: str, database: Database, tmp_path: Path, launch: RunCommand
) -> None:
    """A password that only the application knows is enough for the wait, the lock and a look."""
    app = write_app(tmp_path / "app", [PRINTS])
    source = (app / "app.py").read_text()
    # What mysqlclient calls it.
    lines = WAYS[way].replace('"password"', '"passwd"') if driver == "mysqldb" else WAYS[way]
    (app / "app.py").write_text(source.replace("    db.init_app(app)\n", lines))
    url = make_url(database.url(driver))
    env = {
        "DATABASE_URL": render_url(url.set(password="not this one")),
        "GIVEN": str(url.password),
        "MIGRATE_REFUSED_GRACE": "0",
        "MIGRATE_WAIT_TIMEOUT": "5",
    }

    result = launch(app, "db", "upgrade", env=env)

    log = read_log(result.stderr)
    assert result.returncode == 0, result.stderr
    assert [line["kind"] for line in events(log, "lock.acquired")] == ["advisory"]
    # mysqlclient's connection does not say with which password it was made.
    if (way, driver) != ("creator", "mysqldb"):
        assert "logged in with ***" in result.stderr
        assert str(url.password) not in result.stderr
    engine = create_engine(database.url(), poolclass=NullPool)
    assert inspect(engine).has_table("ran")
    status = launch(app, "status", env=env)
    assert status.returncode == 0, status.stderr
    assert '"state": "at_head"' in status.stdout
    assert '"held": false' in status.stdout


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("token", ["Zq77AbcXyz", "/Zq77AbcXyz"])
def test_token_that_is_refused(
    token: str, driver: str, database: Database, tmp_path: Path, launch: RunCommand
) -> None:
    """A password that only a listener knows is hidden where it does not let anybody in, too."""
    app = write_app(tmp_path / "app", [])
    source = (app / "app.py").read_text()
    lines = TOKEN.replace('"password"', '"passwd"') if driver == "mysqldb" else TOKEN
    # From the second time on.
    lines += "            print('fetched', tokens.pop() if tokens else None)\n"
    lines += "            tokens.append(os.environ['GIVEN'])\n"
    (app / "app.py").write_text("tokens = []\n" + source.replace("    db.init_app(app)\n", lines))
    env = {
        "DATABASE_URL": database.url(driver),
        "GIVEN": token,
        "MIGRATE_REFUSED_GRACE": "1.5",
        "MIGRATE_WAIT_TIMEOUT": "20",
    }
    result = launch(app, "db", "upgrade", env=env)
    assert result.returncode == 6, result.stderr
    assert "fetched ***" in result.stderr
    assert "Zq77" not in result.stderr


BIND = """\
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"connect_args": {"password": "of the main one"}}
    db.init_app(app)
"""


def test_options_of_the_main_database_are_no_bind_s(
    postgres: Server, mariadb: Server, tmp_path: Path, launch: RunCommand
) -> None:
    """`SQLALCHEMY_ENGINE_OPTIONS` is for the main database alone, as in Flask-SQLAlchemy."""
    main, second = postgres.create_database(), mariadb.create_database()
    app = write_app(tmp_path / "app", [])
    source = (app / "app.py").read_text()
    options = BIND.replace("of the main one", str(make_url(main.url()).password))
    options = options.replace('{"password":', '{"application_name": "shop", "password":')
    (app / "app.py").write_text(source.replace("    db.init_app(app)\n", options))
    env = {"DATABASE_URL": main.url(), "SECOND_URL": second.url(), "MIGRATE_REFUSED_GRACE": "0"}

    result = launch(app, "db", "upgrade", env=env)

    assert result.returncode == 0, result.stderr
    postgres.drop_database(main.name)
    mariadb.drop_database(second.name)


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
@pytest.mark.parametrize(
    ("env", "query", "name"),
    [
        ({}, {}, "flask-migrate-sidecar:web-0:"),
        ({}, {"application_name": "shop"}, "shop"),
        ({"PGAPPNAME": "shop"}, {}, "shop"),
    ],
)
def test_migrating_connection_says_whose_it_is(
    env: dict[str, str],
    query: dict[str, str],
    name: str,
    driver: str,
    database: Database,
    tmp_path: Path,
    launch: RunCommand,
) -> None:
    """At the server the connection of a run is called after its pod, if nobody says otherwise."""
    body = (
        "    name = op.get_bind().exec_driver_sql('SHOW application_name').scalar()\n"
        "    print('called', name)"
    )
    app = write_app(tmp_path / "app", [body])
    url = render_url(make_url(database.url(driver)).update_query_dict(query))
    result = launch(app, "db", "upgrade", env={"DATABASE_URL": url, "POD_NAME": "web-0", **env})
    assert result.returncode == 0, result.stderr
    assert f"called {name}" in result.stderr


# What is run for each connection, in app.py or in env.py.
LISTENER = """\
from sqlalchemy import Engine, event


@event.listens_for(Engine, "{moment}")
def prepare(connection, *_):
    {body}


"""
RAISES = {
    "KeyError": "raise KeyError('TOKEN')",
    "SystemExit": "raise SystemExit(0)",
    "SyntaxError": "connection.cursor().execute('PRAGMA foreign_keys = ON')",
}


@pytest.mark.parametrize(
    ("moment", "raised"),
    [*(("connect", name) for name in RAISES), ("before_cursor_execute", "KeyError")],
)
@pytest.mark.parametrize("file", ["app.py", "migrations/env.py"])
def test_listener_that_raises(
    file: str, moment: str, raised: str, postgres: Server, tmp_path: Path, launch: RunCommand
) -> None:
    """It is not the server that is to be looked at, and not the lock, but a line of the code."""
    app = write_app(tmp_path / "app", [])
    prepend(app / file, LISTENER.format(moment=moment, body=RAISES[raised]))
    env = {"DATABASE_URL": postgres.create_database().url(), "MIGRATE_REFUSED_GRACE": "0"}
    result = launch(app, "db", "upgrade", env=env)
    last = read_log(result.stderr)[-1]
    assert result.returncode == last["exit_code"] == 4, last
    assert f"a connection was made or used: {raised}" in last["error"]["message"]
    assert last["where"] == f"{file}:6"
    assert "listener" in last["hint"]


CREATORS = {
    "its own": ("raise KeyError('TOKEN')", 4, "KeyError"),
    "what it does not reach": ("raise ConnectionError('no tokens today')", 5, "no tokens today"),
    "that of the server": (
        "return other.dialect.loaded_dbapi.connect(*plain, **{**named, 'password': 'no'})",
        6,
        "assword",
    ),
    "that of the driver": (
        "return other.dialect.loaded_dbapi.connect(*plain, **named, no_such_argument=1)",
        4,
        "no_such_argument",
    ),
}


@pytest.mark.parametrize("fault", CREATORS)
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "pymysql"])
def test_creator_that_raises(
    driver: str, fault: str, database: Database, tmp_path: Path, launch: RunCommand
) -> None:
    """An error of the creator's is told from what the server says to it."""
    body, code, said = CREATORS[fault]
    app = write_app(tmp_path / "app", [])
    source = (app / "app.py").read_text()
    lines = CREATOR.replace(
        "        return other.dialect.loaded_dbapi.connect(*plain, **named)\n", f"        {body}\n"
    )
    assert lines != CREATOR
    (app / "app.py").write_text(source.replace("    db.init_app(app)\n", lines))
    url = database.url(driver)
    env = {
        "DATABASE_URL": url,
        "GIVEN": str(make_url(url).password),
        "MIGRATE_REFUSED_GRACE": "0",
        "MIGRATE_WAIT_TIMEOUT": "0",
    }
    result = launch(app, "db", "upgrade", env=env)
    last = read_log(result.stderr)[-1]
    assert result.returncode == last["exit_code"] == code, last
    assert said in last["error"]["message"]
    assert ("listener or a creator" in last["hint"]) == (code != 6)
    assert last["where"].startswith("app.py:")
    assert (last["database"], last["attempts"]) == ("default", 1)
    status = launch(app, "status", env=env)
    assert status.returncode == code
    assert '"state": "unreachable"' in status.stdout
