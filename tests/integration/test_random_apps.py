"""Applications that are put together by chance: the run goes where plain `flask db` goes.

The parts are those of a connection: extension, place of the engine's options, driver, who says the
password and the database, and whether there is a bind. With a URL of its own, a run goes there, or
is refused before anything is written.
"""

import json
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import NullPool, create_engine, inspect, make_url, text

from conftest import RunCommand
from racing import TEMPLATE
from servers import DRIVERS, Server, render_url
from sidecar_runs import Result

APP = """\
import json
from pathlib import Path

from flask import Flask
from flask_migrate import Migrate
from sqlalchemy import NullPool, create_engine, event, make_url

SPEC = json.loads(Path(__file__).with_name("spec.json").read_text())


def make_creator(place):
    url = make_url(place["real"])
    other = create_engine(url)
    plain, named = other.dialect.create_connect_args(url)
    return lambda: other.dialect.loaded_dbapi.connect(*plain, **named)


def make_options(place):
    options = dict(place["options"])
    if options.pop("without a pool", False):
        options["poolclass"] = NullPool
    if place["way"] == "arguments":
        options["connect_args"] = place["parameters"]
    if place["way"] == "creator":
        options["creator"] = make_creator(place)
    return options


def listen(engine, place):
    if place["way"] == "listener":
        @event.listens_for(engine, "do_connect")
        def change(dialect, record, args, parameters):
            parameters.update(place["parameters"])


places = SPEC["places"]
extension = SPEC["extension"]
if extension == "lite":
    from flask_sqlalchemy_lite import SQLAlchemy
else:
    from flask_sqlalchemy import SQLAlchemy
given = {"engine_options": make_options(places["default"])} if extension == "constructor" else {}
db = SQLAlchemy(**given)


def create_app():
    app = Flask(__name__)
    binds = {name: {"url": place["url"], **make_options(place)} for name, place in places.items()}
    if extension == "lite":
        app.config["SQLALCHEMY_ENGINES"] = binds
    else:
        app.config["SQLALCHEMY_DATABASE_URI"] = binds.pop("default")["url"]
        app.config["SQLALCHEMY_BINDS"] = binds
    if extension == "settings":
        app.config["SQLALCHEMY_ENGINE_OPTIONS"] = make_options(places["default"])
    db.init_app(app)
    with app.app_context():
        engines = db.engines
        for name, place in places.items():
            listen(engines[None if name == "default" and None in engines else name], place)
    Migrate(app, db)
    return app
"""
REVISION = """\
from alembic import op
import sqlalchemy as sa

revision = "r1"
down_revision = None


def make(name):
    op.create_table(name, sa.Column("n", sa.Integer, primary_key=True))


{functions}
"""
SINGLE = """\
def upgrade():
    make("of_default")


def downgrade():
    op.drop_table("of_default")
"""
SEVERAL = """\
def upgrade(engine_name):
    globals()["upgrade_" + engine_name]()


def downgrade(engine_name):
    pass


def upgrade_():
    make("of_default")


upgrade_default = upgrade_


def upgrade_second():
    make("of_second")
"""
VERSIONS: Final = "alembic_version"
# What drivers call the password and the database.
NAMES: Final = {
    "psycopg": ("password", "dbname"),
    "psycopg2": ("password", "dbname"),
    "pymysql": ("password", "database"),
    "mysqldb": ("passwd", "db"),
}
OPTIONS: Final[tuple[dict[str, Any], ...]] = (
    {},
    {},
    {"pool_pre_ping": True},
    {"without a pool": True},
    {"pool_size": 2, "max_overflow": 0, "pool_timeout": 5},
    {"pool_recycle": 1, "echo": False},
    {"execution_options": {"logging_token": "shop"}},
    {"query_cache_size": 0},
)


@dataclass
class Place:
    """A database as an application says where it is.

    Args:
        url: in its settings.
        real: where its connections go.
        way: who says so: the `url`, `arguments` of the driver, a `listener` or a `creator`.
        parameters: what the arguments or the listener say.
        options: others of the engine.
    """

    url: str
    real: str
    way: str
    parameters: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Case:
    """An application, and which of its databases a run is given another URL for."""

    number: int
    driver: str
    extension: str
    ways: dict[str, str]
    leads: dict[str, bool]
    options: dict[str, dict[str, Any]]
    moved: set[str]

    @classmethod
    def draw(cls, number: int) -> "Case":
        """Put a case together; each number always gives the same one."""
        chance = random.Random(f"application {number}")  # noqa: S311 - nothing is hidden by it
        driver = chance.choice([*DRIVERS, "sqlite"])
        names = ["default", "second"] if chance.random() < 0.5 else ["default"]
        ways = ["url", "creator"] + (["arguments", "listener"] if driver in DRIVERS else [])
        return cls(
            number,
            driver,
            chance.choice(["settings", "constructor", "lite"]),
            {name: chance.choice(ways) for name in names},
            {name: chance.random() < 0.5 for name in names},
            {name: chance.choice(OPTIONS) for name in names},
            {name for name in names if chance.random() < 0.4},
        )


_PLACES: Final = ("as told", "elsewhere", "as given")


class World:
    """Empty databases for one run.

    Args:
        case: what is tried.
        make: makes an empty database, and gives its URL.
    """

    def __init__(self, case: Case, make: Callable[[], str]) -> None:
        self.urls = {f"{name} {which}": make() for name in case.ways for which in _PLACES}
        self.places = {name: self._make_place(case, name) for name in case.ways}
        self.given = {name: self.urls[f"{name} as given"] for name in sorted(case.moved)}

    def _make_place(self, case: Case, name: str) -> Place:
        way = case.ways[name]
        leads = case.leads[name] and way != "url"
        told = self.urls[f"{name} as told"]
        real = self.urls[f"{name} elsewhere"] if leads else told
        place = Place(told, real, way, options=case.options[name])
        if case.driver in NAMES and way != "url":
            password, database = NAMES[case.driver]
            url = make_url(real)
            place.url = render_url(make_url(told).set(password="not this one"))
            place.parameters = {password: url.password}
            place.parameters |= {database: url.database} if leads else {}
        return place

    def look(self) -> dict[str, set[str]]:
        """Tell where each table is; a version table counts once it holds a revision."""
        found: dict[str, set[str]] = {}
        for place, url in self.urls.items():
            for table in list_tables(url):
                found.setdefault(table, set()).add(place)
        return found


def list_tables(url: str) -> list[str]:
    """List the tables of a database, that of the versions where it is not empty."""
    if url.startswith("sqlite") and not Path(str(make_url(url).database)).exists():
        return []
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        tables = [*inspect(connection).get_table_names()]
        versions = text("SELECT version_num FROM alembic_version")
        if VERSIONS in tables and not connection.execute(versions).all():
            tables.remove(VERSIONS)
    return tables


def write_application(folder: Path, case: Case, world: World) -> Path:
    """Write the application of a case."""
    is_several = len(case.ways) > 1
    folder.mkdir()
    (folder / "app.py").write_text(APP)
    spec = {"extension": case.extension, "places": {n: asdict(p) for n, p in world.places.items()}}
    (folder / "spec.json").write_text(json.dumps(spec))
    template = TEMPLATE.with_name("flask-multidb") if is_several else TEMPLATE
    shutil.copytree(template, folder / "migrations")
    ini = (folder / "migrations" / "alembic.ini.mako").read_text().replace("%%", "%")
    (folder / "migrations" / "alembic.ini").write_text(ini)
    (folder / "migrations" / "versions").mkdir()
    functions = SEVERAL if is_several else SINGLE
    (folder / "migrations" / "versions" / "r1.py").write_text(REVISION.format(functions=functions))
    return folder


@contextmanager
def worlds(case: Case, server: Server | None, folder: Path) -> Iterator[Callable[[], World]]:
    """Give a function that makes worlds, whose databases are dropped behind the block."""
    made: list[str] = []
    files = iter(range(1000))

    def make() -> str:
        if server is None:
            return f"sqlite:///{folder / f'{next(files)}.db'}"
        database = server.create_database()
        made.append(database.name)
        return database.url(case.driver)

    try:
        yield lambda: World(case, make)
    finally:
        for name in made:
            if server is not None:
                server.drop_database(name)


def give(world: World) -> Iterator[str]:
    """Give the options that name other URLs."""
    for name, url in world.given.items():
        if name == "default":
            yield from ("--database-url", url)
        else:
            yield from ("--bind-url", f"{name}={url}")


def check(case: Case, plain: World, code: int, moved: World, result: Result) -> None:
    """Hold a run to what plain `flask db upgrade` has done."""
    expected, landed = plain.look(), moved.look()
    if not case.moved:
        assert (result.returncode == 0) == (code == 0), result.last
        assert code != 0 or landed == expected, result.last
        return
    if result.returncode == 0:
        for name in case.moved:
            assert landed[f"of_{name}"] == {f"{name} as given"}, result.last
        # Where plain fails, nobody knows where it would have gone.
        for name in {*case.ways} - case.moved if code == 0 else ():
            assert landed[f"of_{name}"] == expected[f"of_{name}"], result.last
        assert set().union(*(landed[f"of_{name}"] for name in case.ways)) == landed[VERSIONS]
        return
    # One that says itself where to connect can be refused, before anything is done.
    assert code or any(moved.places[name].way != "url" for name in case.ways), result.last
    assert code or (result.returncode, landed) == (3, {}), result.last


QUICK: Final = 12
NUMBERS = [
    pytest.param(number, marks=[] if number < QUICK else [pytest.mark.endurance])
    for number in range(240)
]


@pytest.mark.parametrize("number", NUMBERS)
def test_application_by_chance(
    number: int,
    tmp_path: Path,
    launch: Callable[..., Result],
    flask_db: RunCommand,
    request: pytest.FixtureRequest,
) -> None:
    """Where plain `flask db upgrade` lands, the run lands; where it is sent, it goes or refuses."""
    case = Case.draw(number)
    if case.extension == "lite" and find_spec("flask_sqlalchemy_lite") is None:
        pytest.skip("Flask-SQLAlchemy-Lite needs Flask 3")
    if case.driver == "mysqldb":
        pytest.importorskip("MySQLdb")
    server = request.getfixturevalue(DRIVERS[case.driver]) if case.driver in DRIVERS else None
    with worlds(case, server, tmp_path) as make_world:
        plain, ours = make_world(), make_world()
        upstream = flask_db(write_application(tmp_path / "plain", case, plain), "upgrade")
        app = write_application(tmp_path / "ours", case, ours)
        limits: Mapping[str, str] = {"MIGRATE_WAIT_TIMEOUT": "5", "MIGRATE_REFUSED_GRACE": "0"}
        result = launch(app, *give(ours), "db", "upgrade", env=limits)
        check(case, plain, upstream.returncode, ours, result)
