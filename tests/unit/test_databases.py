"""What database URLs mean, whoever wrote them."""

import importlib.util
from pathlib import Path

import pytest
from sqlalchemy import create_engine, event, make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import create_async_engine
from structlog.testing import capture_logs

from flask_migrate_sidecar.database.connect import Database
from flask_migrate_sidecar.database.dialect import find_dialect
from flask_migrate_sidecar.database.driver import parse_url, sync_url
from flask_migrate_sidecar.database.url import is_memory, sqlite_path
from flask_migrate_sidecar.errors import AppError, ConfigurationError


@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
def test_bare_postgresql_url_gets_a_driver_that_loads(scheme: str) -> None:
    """A platform's `postgres://` works, and the log names the driver that was chosen."""
    with capture_logs() as logs:
        url = parse_url(f"{scheme}://u:p@db:5433/shop", name="default")
    assert url.drivername in ("postgresql+psycopg", "postgresql+psycopg2")
    assert (url.host, url.port, url.database) == ("db", 5433, "shop")
    assert [line["event"] for line in logs] == ["database.driver"]
    assert logs[0]["driver"] == url.get_driver_name()


@pytest.mark.parametrize("scheme", ["mysql", "mariadb"])
def test_bare_mysql_url_means_pymysql_without_mysqlclient(scheme: str) -> None:
    """SQLAlchemy's default driver is used where it is installed, else PyMySQL."""
    driver = "mysqldb" if importlib.util.find_spec("MySQLdb") else "pymysql"
    assert parse_url(f"{scheme}://db/shop", name="default").drivername == f"{scheme}+{driver}"


def test_asynchronous_engine_is_not_borrowed_from() -> None:
    """Psycopg is one driver for both kinds of engine: ours connect without a loop all the same."""
    url = make_url("postgresql+psycopg://u:p@127.0.0.1:1/d")
    database = Database.of_app("default", url, source=create_async_engine(url).sync_engine)
    with pytest.raises(OperationalError, match=r"127\.0\.0\.1"):
        database.engine(connect_timeout=1).connect()


def test_named_driver_stays() -> None:
    """A driver that the URL names is the user's choice."""
    url = parse_url("postgres+psycopg2://db/shop", name="default")
    assert url.drivername == "postgresql+psycopg2"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("postgresql://u:s3cret@h/db\nx", "holds a line break"),
        ("postgresql://u:s3cret@h/d\0b", "holds a line break"),
        ("s3cret", "is malformed"),
        ("//u:s3cret@h/db", "is malformed"),
        ("postgresql://u:x/s3cret@h:s3cret/db", "port that is not a number"),
        ("postgresql://u:s3cret@h:0/db", "port outside 1 to 65535"),
        ("postgresql://u:s3cret@h:65536/db", "port outside 1 to 65535"),
        ("postgresql:///db?password=s3cret&host=a:1,b:70000", "port outside 1 to 65535"),
        ("postgresql:///db?password=s3cret&host=a&port=x", "port that is not a number"),
        ("nosuch://u:s3cret@h/db", "unknown dialect"),
        ("postgresql+nosuch://u:s3cret@h/db", "unknown dialect"),
    ],
)
def test_bad_url_is_a_configuration_error_that_keeps_the_secret(text: str, said: str) -> None:
    """Whatever is wrong with a URL is said without repeating any of it."""
    with pytest.raises(ConfigurationError, match=said) as caught:
        parse_url(text, name="stock")
    shown = f"{caught.value} {caught.value.hint} {caught.value.fields}"
    assert "'stock'" in shown
    assert "s3cret" not in shown
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    ("text", "package"),
    [
        ("postgresql+psycopg2cffi://u:s3cret@h/db", "psycopg2cffi"),
        ("mysql+mysqlconnector://u:s3cret@h/db", "mysql-connector-python"),
        ("mssql://u:s3cret@h/db", "pyodbc"),
    ],
)
def test_missing_driver_is_named_with_its_package(text: str, package: str) -> None:
    """A driver that is not installed is a configuration error that says what to install."""
    with pytest.raises(ConfigurationError, match="is not installed") as caught:
        parse_url(text, name="default")
    assert caught.value.hint is not None
    assert package in caught.value.hint
    assert "s3cret" not in f"{caught.value}{caught.value.fields}"


@pytest.mark.parametrize(
    ("given", "backend", "query"),
    [
        ("postgresql+asyncpg://u:p@h/d?ssl=require", "postgresql", {"sslmode": "require"}),
        (
            "postgresql+asyncpg://u:p@h/d?ssl=true&command_timeout=3",
            "postgresql",
            {"sslmode": "require"},
        ),
        ("postgresql+asyncpg://u:p@h/d?prepared_statement_cache_size=0", "postgresql", {}),
        ("mysql+aiomysql://u:p@h/d?charset=utf8mb4&echo=true", "mysql", {"charset": "utf8mb4"}),
        ("mysql+asyncmy://u:p@h/d", "mysql", {}),
        ("sqlite+aiosqlite:///x.db?iter_chunk_size=5", "sqlite", {}),
    ],
)
def test_asynchronous_driver_has_a_synchronous_stand_in(
    given: str, backend: str, query: dict[str, str]
) -> None:
    """The sidecar's own connections are synchronous, to the same place, without odd arguments."""
    url = sync_url(parse_url(given, name="default"))
    assert url.get_backend_name() == backend
    assert not url.get_dialect().is_async
    assert dict(url.query) == query
    assert (url.host, url.database) == (make_url(given).host, make_url(given).database)


def test_synchronous_url_stays() -> None:
    """Nothing is changed in a URL that needs no change."""
    url = make_url("postgresql+psycopg://u:p@h/d?sslmode=prefer")
    assert sync_url(url) is url


def identify(url: str) -> tuple[str, ...]:
    """Ask which database a URL leads to."""
    engine = create_engine(url)
    with engine.connect() as connection:
        found = find_dialect("sqlite").identify(connection)
    engine.dispose()
    return found


def test_spellings_of_a_sqlite_file_are_one(tmp_path: Path) -> None:
    """A link, a detour and a URI are other spellings of the file: one run takes one lock."""
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "sub").mkdir()
    file = identify(f"sqlite:///{tmp_path}/x.db")
    assert identify(f"sqlite:///{tmp_path}/link/x.db") == file
    assert identify(f"sqlite:///{tmp_path}/sub/../x.db") == file
    assert identify(f"sqlite:///file:{tmp_path}/x.db?mode=rw&uri=true") == file
    assert identify(f"sqlite:///{tmp_path}/y.db") != file


@pytest.mark.parametrize(
    ("text", "memory"),
    [
        ("sqlite://", True),
        ("sqlite:///:memory:", True),
        ("sqlite:///file::memory:?cache=shared&uri=true", True),
        ("sqlite:///file:x?mode=memory&cache=shared&uri=true", True),
        ("sqlite:///x.db", False),
        ("sqlite:///memory", False),
        ("postgresql://h/:memory:", False),
    ],
)
def test_database_in_memory_is_recognised(text: str, memory: bool) -> None:
    """What lives in memory is neither waited for nor locked."""
    assert is_memory(make_url(text)) is memory


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:////data/a b.db",
        "sqlite:///file:/data/a%20b.db?mode=ro&uri=true",
        "sqlite:///file:///data/a%20b.db?uri=true",
        "sqlite:///file://localhost/data/a%20b.db?uri=true",
    ],
)
def test_sqlite_path_is_read_out_of_a_uri(text: str) -> None:
    """Each form of a SQLite URL leads to the file that SQLite would open."""
    assert sqlite_path(make_url(text)) == Path("/data/a b.db")


def test_hosts_share_the_time() -> None:
    """To libpq the limit for each host anew, so each gets its part, 2 s at least."""
    dialect = find_dialect("postgresql")
    arguments = dialect.arguments(make_url("postgresql+psycopg:///d?host=a,b"), 10)
    assert arguments["connect_timeout"] == 5
    arguments = dialect.arguments(make_url("postgresql+psycopg2://a/d"), 0.5)
    assert arguments["connect_timeout"] == 2


def test_mysql_handshake_is_limited() -> None:
    """PyMySQL's limit on connecting ends before the handshake, so reading has one as well."""
    arguments = find_dialect("mysql").arguments(make_url("mysql+pymysql://a/d"), 2.5, 3.5)
    limits = {"connect_timeout": 3, "read_timeout": 4, "write_timeout": 4}
    assert arguments == {**arguments, **limits}


def test_arguments_of_the_application_win() -> None:
    """The app's engine options and URL decide, rows of a form of its own aside."""
    url = make_url("postgresql+psycopg://h/d?connect_timeout=7")
    database = Database("default", url, {"application_name": "shop", "row_factory": dict})
    seen = _connect_arguments(database)
    assert seen["connect_timeout"] == "7"
    assert seen["application_name"] == "shop"
    assert "row_factory" not in seen


def test_asynchronous_arguments_are_left_behind() -> None:
    """Arguments of asyncpg mean nothing to psycopg, what both know is kept."""
    given = {"server_settings": {"jit": "off"}, "timeout": 5, "passfile": "/x"}
    database = Database.of_app("a", make_url("postgresql+asyncpg://h/d"), given)
    assert database.url.get_driver_name() in ("psycopg", "psycopg2")
    assert database.connect_args == {"passfile": "/x"}


def test_arguments_of_the_driver_are_not_shown() -> None:
    """They may hold a password, and a representation ends up in a traceback."""
    database = Database("a", make_url("postgresql+psycopg://u:s3cret@h/d"), {"password": "s3cret"})
    assert "s3cret" not in repr(database)


def _connect_arguments(database: Database) -> dict[str, object]:
    seen: dict[str, object] = {}
    engine = database.engine(connect_timeout=5)

    class SeenError(Exception):
        pass

    @event.listens_for(engine, "do_connect")
    def look(
        _dialect: object, _record: object, _args: object, arguments: dict[str, object]
    ) -> None:
        seen.update(arguments)
        raise SeenError

    with pytest.raises(AppError, match="SeenError"):
        engine.connect()
    return seen
