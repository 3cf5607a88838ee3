"""Any database object: Flask-SQLAlchemy 3, Flask-SQLAlchemy-Lite, Alchemical, also asynchronous."""

import subprocess
import sys
from pathlib import Path

import pytest

from conftest import clean_environment
from library import HEAD, flask, tables_of, versions_of, write_app

LITE_START = """
from pathlib import Path

from flask import Flask
from flask_migrate import Migrate
from flask_sqlalchemy_lite import SQLAlchemy
from sqlalchemy import Column, Integer, MetaData, Table

HERE = Path(__file__).parent
app = Flask(__name__)
main, users = MetaData(), MetaData()
Table("person", main, Column("id", Integer, primary_key=True))
Table("account", users, Column("id", Integer, primary_key=True))
"""

LITE = f"""{LITE_START}
app.config["SQLALCHEMY_ENGINES"] = {{"default": f"sqlite:///{{HERE}}/main.db"}}
db = SQLAlchemy(app)
migrate = Migrate(app, db, target_metadata=main)
"""

LITE_MULTIDB = f"""{LITE_START}
app.config["SQLALCHEMY_ENGINES"] = {{
    name: f"sqlite:///{{HERE}}/{{file}}.db" for name, file in [("default", "main"), ("users",) * 2]
}}
db = SQLAlchemy(app)
migrate = Migrate(app, db, target_metadata={{"default": main, "users": users}})
"""

LITE_ASYNC = LITE.replace("_ENGINES", "_ASYNC_ENGINES").replace("sqlite:", "sqlite+aiosqlite:")
LITE_MULTIDB_ASYNC = LITE_MULTIDB.replace("_ENGINES", "_ASYNC_ENGINES").replace(
    "sqlite:", "sqlite+aiosqlite:"
)

ALCHEMICAL_MULTIDB = """
from pathlib import Path

from alchemical.flask import Alchemical
from flask import Flask
from flask_migrate import Migrate
from sqlalchemy.orm import Mapped, mapped_column

HERE = Path(__file__).parent
app = Flask(__name__)
app.config["ALCHEMICAL_DATABASE_URL"] = f"sqlite:///{HERE}/main.db"
app.config["ALCHEMICAL_BINDS"] = {"users": f"sqlite:///{HERE}/users.db"}
db = Alchemical()
migrate = Migrate()

class Person(db.Model):
    id: Mapped[int] = mapped_column(primary_key=True)

class Account(db.Model):
    __bind_key__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)

db.init_app(app)
migrate.init_app(app, db)
"""

PERSON_ONLY = ALCHEMICAL_MULTIDB.split("class Account", maxsplit=1)[0]
ALCHEMICAL = (
    PERSON_ONLY.replace('app.config["ALCHEMICAL_BINDS"]', "_")
    + "\ndb.init_app(app)\nmigrate.init_app(app, db)\n"
)


def to_async(source: str) -> str:
    """Make an application's Alchemical asynchronous."""
    return (
        source.replace("sqlite:", "sqlite+aiosqlite:")
        .replace("from alchemical.flask import Alchemical", "from alchemical.aio import Alchemical")
        .replace("db.init_app(app)", "db.initialize(f'sqlite+aiosqlite:///{HERE}/main.db', BINDS)")
    )


BINDS = "BINDS = {'users': f'sqlite+aiosqlite:///{HERE}/users.db'}\n"
ALCHEMICAL_ASYNC = to_async(ALCHEMICAL).replace("db = ", "BINDS = None\ndb = ", 1)
ALCHEMICAL_MULTIDB_ASYNC = to_async(ALCHEMICAL_MULTIDB).replace("db = ", BINDS + "db = ", 1)

SEVERAL_METADATA = f"""{HEAD}
from sqlalchemy import Column, Integer, MetaData, Table

db = SQLAlchemy(app)
other = MetaData()
Table("other", other, Column("id", Integer, primary_key=True))
migrate = Migrate(app, db, target_metadata=[db.metadata, other])

class Person(db.Model):
    id = db.Column(db.Integer, primary_key=True)
"""

SINGLE_OBJECTS = {
    "lite": (LITE, "flask"),
    "lite, async": (LITE_ASYNC, "aioflask"),
    "alchemical": (ALCHEMICAL, "flask"),
    "alchemical, async": (ALCHEMICAL_ASYNC, "aioflask"),
    "several metadata": (SEVERAL_METADATA, "flask"),
}
MULTIDB_OBJECTS = {
    "lite": (LITE_MULTIDB, "flask-multidb"),
    "lite, async": (LITE_MULTIDB_ASYNC, "aioflask-multidb"),
    "alchemical": (ALCHEMICAL_MULTIDB, "flask-multidb"),
    "alchemical, async": (ALCHEMICAL_MULTIDB_ASYNC, "aioflask-multidb"),
}


@pytest.fixture
def kind(request: pytest.FixtureRequest) -> str:
    """Return the kind of database object, if it can be imported."""
    if request.param.startswith("lite"):
        reason = "Flask-SQLAlchemy-Lite needs Flask 3"
        pytest.importorskip("flask_sqlalchemy_lite", reason=reason, exc_type=ImportError)
    return str(request.param)


@pytest.mark.parametrize("kind", SINGLE_OBJECTS, indirect=True)
def test_one_database(kind: str, tmp_path: Path) -> None:
    """Compare, upgrade, check, print SQL and downgrade with each kind of object."""
    source, template = SINGLE_OBJECTS[kind]
    write_app(tmp_path, source)
    *_, none, sql = flask(
        tmp_path,
        f"db init -t {template}",
        "db migrate --rev-id aa",
        "db upgrade",
        "db check",
        "db current",
        "db migrate",
        "db upgrade --sql",
    )
    assert "No changes in schema detected" in none.stderr
    assert "CREATE TABLE person" in sql.stdout
    assert "person" in tables_of(tmp_path / "main.db")
    flask(tmp_path, "db downgrade", "db revision --rev-id bb")
    assert tables_of(tmp_path / "main.db") == set()


@pytest.mark.parametrize("kind", MULTIDB_OBJECTS, indirect=True)
def test_several_databases(kind: str, tmp_path: Path) -> None:
    """The same with several databases, and `--bind`."""
    source, template = MULTIDB_OBJECTS[kind]
    write_app(tmp_path, source)
    *_, sql, none = flask(
        tmp_path,
        f"db init -t {template}",
        "db revision --rev-id aa",
        "db upgrade",
        "db migrate --rev-id bb",
        "db upgrade --bind users",
        "db check --bind users",
        "db upgrade --sql --bind default",
        "db upgrade",
    )
    assert "-- Database: default" in sql.stdout
    assert tables_of(tmp_path / "main.db") == {"person"}
    assert tables_of(tmp_path / "users.db") == {"account"}
    *_, none = flask(tmp_path, "db check", "db migrate")
    assert "No changes in schema detected" in none.stderr
    flask(tmp_path, "db downgrade base")
    assert tables_of(tmp_path / "users.db") == set()
    assert versions_of(tmp_path / "main.db") == []


CALLS = """
import asyncio, app, flask_migrate

async def count():
    async with app.db.get_engine().connect() as connection:
        result = await connection.exec_driver_sql("SELECT count(*) FROM person")
        return result.scalar()

with app.app.app_context():
    for _ in range(3):
        flask_migrate.upgrade()
        pool = app.db.get_engine().pool  # in old SQLAlchemy one that keeps nothing
        assert getattr(pool, "checkedin", int)() == 0
        print(asyncio.run(count()))
        flask_migrate.downgrade()
    asyncio.run(app.db.get_engine().dispose())
"""


def test_calls_around_an_event_loop(tmp_path: Path) -> None:
    """After a call, the application's engine works in its own event loop."""
    write_app(tmp_path, ALCHEMICAL_ASYNC)
    flask(tmp_path, "db init -t aioflask", "db migrate")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CALLS],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0"] * 3
