"""The example apps' histories run both ways on every database."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import NullPool, create_engine, inspect, text

from schema import describe_schema
from servers import Postgres

if TYPE_CHECKING:
    from conftest import Run, RunCommand

SHOP_TABLES = {
    "category",
    "customer",
    "daily_sales",
    "discount",
    "order_line",
    "orders",
    "product",
    "stock",
    "warehouse",
}
VERSION = "alembic_version"


@dataclass(frozen=True)
class Example:
    """An example app: its head, and per variable that names a database the tables at head."""

    name: str
    head: str
    tables: Mapping[str, set[str]]


EXAMPLES = [
    Example("shop", "6b92f4ec08d1", {"DATABASE_URL": SHOP_TABLES}),
    Example(
        "multidb",
        "e6412c9f0a7d",
        {
            "DATABASE_URL": {"note"},
            "USERS_DATABASE_URL": {"account"},
            "AUDIT_DATABASE_URL": {"event"},
        },
    ),
    Example("legacy", "b35f7d1029ec", {"DATABASE_URL": {"user", "post"}}),
]


@pytest.fixture(params=EXAMPLES, ids=lambda example: example.name)
def example(request: pytest.FixtureRequest) -> Example:
    """Run the test once on each app."""
    assert isinstance(request.param, Example)
    return request.param


def test_history_runs_both_ways(
    example: Example,
    create_database_url: Callable[[], str],
    copy_app: Callable[[str], Path],
    flask_db: "RunCommand",
) -> None:
    """A history reaches its models' schema, undoes all of it, and reaches it again."""
    app = copy_app(example.name)
    env = {variable: create_database_url() for variable in example.tables}

    succeeded(flask_db(app, "upgrade", env=env))
    succeeded(flask_db(app, "check", env=env))
    reached = {variable: describe_schema(env[variable]) for variable in example.tables}
    for variable, tables in example.tables.items():
        assert {*reached[variable]} == {*tables, VERSION}
    assert example.head in flask_db(app, "current", env=env).stdout

    succeeded(flask_db(app, "downgrade", "base", env=env))
    for variable in example.tables:
        assert tables_of(env[variable]) == {VERSION}
        assert types_of(env[variable]) == []

    succeeded(flask_db(app, "upgrade", env=env))
    for variable in example.tables:
        assert describe_schema(env[variable]) == reached[variable]


def test_history_has_one_head(
    example: Example, copy_app: Callable[[str], Path], flask_db: "RunCommand"
) -> None:
    """Branches end in merges, so that plain `upgrade` knows where to go."""
    heads = succeeded(flask_db(copy_app(example.name), "heads")).stdout.splitlines()
    assert [line.split()[0] for line in heads] == [example.head]


@pytest.mark.parametrize("driver", ["", "psycopg", "psycopg2"])
def test_shop_takes_any_postgresql_url(
    driver: str, postgres15: Postgres, copy_app: Callable[[str], Path], flask_db: "RunCommand"
) -> None:
    """The app passes a URL on as given: a bare one, or one that names either driver."""
    env = {"DATABASE_URL": postgres15.create_database().url(driver)}
    app = copy_app("shop")
    succeeded(flask_db(app, "upgrade", env=env))
    succeeded(flask_db(app, "check", env=env))
    assert tables_of(env["DATABASE_URL"]) == {*SHOP_TABLES, VERSION}
    succeeded(flask_db(app, "downgrade", "base", env=env))
    assert tables_of(env["DATABASE_URL"]) == {VERSION}


def test_shop_carries_its_rows_along(
    database_url: str, copy_app: Callable[[str], Path], flask_db: "RunCommand"
) -> None:
    """A data migration fills new columns from old rows, and old columns back on the way down."""
    app, env = copy_app("shop"), {"DATABASE_URL": database_url}
    succeeded(flask_db(app, "upgrade", "70a3e9d1c46b", env=env))
    insert = "INSERT INTO product (id, sku, title, price) VALUES (7, 'TEA', 'Green Tea', 19.99)"
    query(database_url, insert)

    succeeded(flask_db(app, "upgrade", env=env))
    row = "SELECT slug, price_cents, currency, active FROM product"
    assert query(database_url, row) == [("green-tea-7", 1999, "EUR", 1)]

    succeeded(flask_db(app, "downgrade", "70a3e9d1c46b", env=env))
    ((price,),) = query(database_url, "SELECT price FROM product")
    assert float(str(price)) == 19.99


def test_shop_serves_what_was_migrated(
    database_url: str, copy_app: Callable[[str], Path], flask_db: "RunCommand", run: "Run"
) -> None:
    """The page reads migrated tables, and importing the app needs none of them."""
    app, env = copy_app("shop"), {"DATABASE_URL": database_url, "FLASK_MIGRATE_SIDECAR": "1"}
    python = [sys.executable, "-c"]
    page = "from app import create_app; print(create_app().test_client().get('/').text)"
    assert succeeded(run([*python, "import app; app.create_app()"], cwd=app, env=env)).stdout == ""
    succeeded(flask_db(app, "upgrade", env=env))
    succeeded(run([sys.executable, "-m", "flask", "seed"], cwd=app, env=env))
    assert "12.50 EUR" in succeeded(run([*python, page], cwd=app, env=env)).stdout


def test_multidb_changes_all_databases_or_none(
    postgres: Postgres, copy_app: Callable[[str], Path], flask_db: "RunCommand"
) -> None:
    """If one database refuses a revision, the others keep what they had."""
    names = ("DATABASE_URL", "USERS_DATABASE_URL", "AUDIT_DATABASE_URL")
    env = {name: postgres.create_database().url() for name in names}
    query(env["AUDIT_DATABASE_URL"], "CREATE TABLE event (in_the_way integer)")

    result = flask_db(copy_app("multidb"), "upgrade", env=env)

    assert result.returncode != 0
    assert '"event" already exists' in result.stderr
    assert tables_of(env["DATABASE_URL"]) == set()
    assert tables_of(env["USERS_DATABASE_URL"]) == set()
    assert tables_of(env["AUDIT_DATABASE_URL"]) == {"event"}


def succeeded(result: CompletedProcess[str]) -> CompletedProcess[str]:
    """Return the result, and show what the program said if it failed."""
    assert result.returncode == 0, result.stdout + result.stderr
    return result


def tables_of(url: str) -> set[str]:
    """Return the names of a database's tables."""
    return set(inspect(create_engine(url, poolclass=NullPool)).get_table_names())


def types_of(url: str) -> list[object]:
    """Return the enum types that a database holds on their own."""
    engine = create_engine(url, poolclass=NullPool)
    if engine.dialect.name != "postgresql":
        return []
    with engine.connect() as connection:
        return list(connection.scalars(text("SELECT typname FROM pg_type WHERE typtype = 'e'")))


def query(url: str, statement: str) -> list[tuple[object, ...]]:
    """Run one statement, keep what it did, and return its rows."""
    with create_engine(url, poolclass=NullPool).begin() as connection:
        result = connection.execute(text(statement))
        return [tuple(row) for row in result] if result.returns_rows else []
