"""Several version tables in one database: each is read, told and waited for by its own."""

import json
from collections.abc import Iterator
from pathlib import Path
from textwrap import indent

import pytest
from sqlalchemy import NullPool, create_engine, make_url, text

from racing import GATED, finish, let_go_on, start, write_app
from servers import USER, Database, Postgres, Server, render_url
from sidecar_runs import Launcher, revision_file

# The recipes of Alembic's cookbook, "Rudimental Schema-Level Multi Tenancy", around a list of
# tenants that the application keeps in a table.
LOOP = """
def run_online():
    with get_engine().connect() as connection:
        rows = connection.exec_driver_sql("SELECT name FROM tenants ORDER BY number")
        tenants = [row[0] for row in rows]
        connection.commit()
        for tenant in tenants:
            {configure}
            with context.begin_transaction():
                context.run_migrations()
"""
ONE = """
def run_online():
    tenant = context.get_x_argument(as_dictionary=True)["tenant"]
    with get_engine().connect() as connection:
        {configure}
        with context.begin_transaction():
            context.run_migrations()
"""
ENTER = {
    "postgresql": 'connection.exec_driver_sql(f"SET search_path TO {tenant}")',
    "mariadb": 'connection.exec_driver_sql(f"USE {tenant}")',
}
HERE = """{enter}
connection.commit()
connection.dialect.default_schema_name = tenant
context.configure(connection=connection, **get_arguments())"""
THERE = """{enter}
connection.commit()
context.configure(connection=connection, version_table_schema=tenant, **get_arguments())"""


class Tenancy:
    """An application with a schema for each tenant.

    Args:
        app: the application.
        database: where they are.
        server: of that database.
        kind: of the server.
    """

    def __init__(self, app: Path, server: Server, database: Database, kind: str) -> None:
        self.app, self.server, self.database, self.kind = app, server, database, kind
        self.env = {"DATABASE_URL": database.url()}
        self._names: dict[str, str] = {}
        self.query("CREATE TABLE tenants (number INTEGER, name VARCHAR(20))")

    def name(self, tenant: str) -> str:
        """Give the schema's name: on MariaDB a database of the server's."""
        return self._names[tenant]

    def query(self, statement: str) -> None:
        """Run one statement."""
        engine = create_engine(self.database.url(), poolclass=NullPool)
        with engine.begin() as connection:
            connection.execute(text(statement))

    def add(self, *tenants: str) -> None:
        """Add tenants, whose schemas are empty."""
        for tenant in tenants:
            if self.kind == "postgresql":
                self.query(f"CREATE SCHEMA {tenant}")
                self._names[tenant] = tenant
            else:
                self._names[tenant] = self.server.create_database().name
            number = len(self._names)
            self.query(f"INSERT INTO tenants VALUES ({number}, '{self.name(tenant)}')")

    def configure(self, shape: str, where: str) -> None:
        """Write an `env.py` of one of the shapes."""
        (line,) = (line for line in shape.splitlines() if "{configure}" in line)
        configure = indent(where.format(enter=ENTER[self.kind]), line.partition("{")[0])
        env_py = self.app / "migrations" / "env.py"
        source = env_py.read_text()
        before, behind = source.index("def run_online"), source.index("\nset_up_logging()")
        own = shape.format(configure=configure.lstrip()).lstrip()
        env_py.write_text(f"{source[:before]}{own}\n{source[behind:]}")

    def close(self) -> None:
        """Drop what other databases of the server were made."""
        for name in self._names.values() if self.kind == "mariadb" else ():
            self.server.drop_database(name)


@pytest.fixture(params=["postgresql", "mariadb"])
def tenancy(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tenancy]:
    """Return an application with three tenants and one revision of its own."""
    fixture = {"postgresql": "postgres", "mariadb": "mariadb"}[request.param]
    server: Server = request.getfixturevalue(fixture)
    database = server.create_database()
    app = write_app(tmp_path / "app", [GATED])
    let_go_on(app, "r2")
    made = Tenancy(app, server, database, request.param)
    made.configure(LOOP, HERE)
    yield made
    made.close()
    server.drop_database(database.name)


def read_states(launch: Launcher, tenancy: Tenancy, *options: str) -> dict[str, str]:
    """Give the state of each tenant, as `status` prints it."""
    result = launch(tenancy.app, "status", *options, env=tenancy.env)
    assert result.returncode == 0, result.stderr
    databases = json.loads(result.stdout)["databases"]
    return {name.removeprefix("default/"): state["state"] for name, state in databases.items()}


@pytest.mark.parametrize("where", [HERE, THERE], ids=["search_path", "version_table_schema"])
def test_each_tenant_is_told(where: str, tenancy: Tenancy, launch: Launcher) -> None:
    """One tenant that is behind is seen, whatever the others are."""
    tenancy.configure(LOOP, where)
    tenancy.add("blue", "green")
    assert launch(tenancy.app, "db", "upgrade", env=tenancy.env).returncode == 0
    tenancy.add("red")

    assert read_states(launch, tenancy) == {
        tenancy.name("blue"): "at_head",
        tenancy.name("green"): "at_head",
        tenancy.name("red"): "empty",
    }
    gate = launch(tenancy.app, "--head-timeout", "0", "wait", "head", env=tenancy.env)
    assert gate.returncode == 10
    assert gate.last["states"][f"default/{tenancy.name('red')}"] == "empty"

    result = launch(tenancy.app, "db", "upgrade", env=tenancy.env)
    assert result.returncode == 0, result.stderr
    applied = [line for line in result.log if line["event"] == "migration.applied"]
    assert {line["tenant"] for line in applied} == {tenancy.name("red")}
    assert result.last["applied"] == ["r1", "r2"]
    assert result.last["to"][f"default/{tenancy.name('blue')}"] == ["r2"]
    assert launch(tenancy.app, "wait", "head", env=tenancy.env).returncode == 0


def test_failure_names_its_tenant(tenancy: Tenancy, launch: Launcher) -> None:
    """What stayed and what did not is told of each tenant, and where the run failed."""
    tenancy.add("blue", "green")
    tenancy.query(f"CREATE TABLE {tenancy.name('green')}.ran (revision INTEGER)")

    result = launch(tenancy.app, "db", "upgrade", env=tenancy.env)

    assert result.returncode == 8
    blue, green = (f"default/{tenancy.name(tenant)}: " for tenant in ("blue", "green"))
    assert result.last["tenant"] == tenancy.name("green")
    assert result.last["kept"] == [f"{blue}r1", f"{blue}r2"]
    lost = result.last["rolled_back"] + result.last.get("unfinished", [])
    assert lost == [f"{green}r1"]


def test_tenant_that_is_not_come_to_again(tenancy: Tenancy, launch: Launcher) -> None:
    """Where `env.py` takes only tenants without their tables, what was done is read all the same.

    A good run is 0, and of a bad one each tenant's revisions are told as they are.
    """
    new = "WHERE name NOT IN (SELECT table_schema FROM information_schema.tables WHERE {}) ORDER"
    tenancy.configure(LOOP.replace("ORDER", new.format("table_name = 'ran'")), HERE)
    tenancy.add("blue", "green")
    result = launch(tenancy.app, "db", "upgrade", env=tenancy.env)
    assert result.returncode == 0, result.stderr
    assert result.last["applied"] == ["r1", "r2"] * 2

    tenancy.add("red", "white")
    tenancy.query(f"CREATE TABLE {tenancy.name('white')}.ran_too (revision INTEGER)")
    second = revision_file(tenancy.app, "r2")
    begin = "def upgrade():\n"
    table = '    op.create_table("ran_too", sa.Column("x", sa.Integer))\n'
    second.write_text(second.read_text().replace(begin, begin + table))
    result = launch(tenancy.app, "db", "upgrade", env=tenancy.env)
    assert result.returncode == 8
    red, white = (f"default/{tenancy.name(tenant)}: " for tenant in ("red", "white"))
    # MariaDB commits the first revision, with its version, before it makes the second one's table.
    first = [f"{white}r1"]
    kept, lost = ([], first) if tenancy.kind == "postgresql" else (first, [])
    assert result.last["kept"] == [f"{red}r1", f"{red}r2", *kept]
    said = result.last["rolled_back"] + result.last.get("unfinished", [])
    assert said == [*lost, f"{white}r2"]
    assert "unknown" not in result.last


def test_no_tenant_yet(tenancy: Tenancy, launch: Launcher) -> None:
    """Without a tenant there is nothing to do and nothing to wait for, and both say so."""
    for command in (("db", "upgrade"), ("--head-timeout", "0", "wait", "head")):
        result = launch(tenancy.app, *command, env=tenancy.env)
        assert result.returncode == 0
        warned = [line for line in result.log if line["event"] == "database.unmanaged"]
        assert [line["hint"] for line in warned] == [
            "env.py has come to no version table: are there no tenants yet?"
        ]


def test_tenant_that_is_named(tenancy: Tenancy, launch: Launcher) -> None:
    """An env.py that wants to be told the tenant is told it by those who look, too."""
    tenancy.configure(ONE, HERE)
    tenancy.add("blue", "green")
    named = ("-x", f"tenant={tenancy.name('blue')}")
    gate = ("--head-timeout", "0", "wait", "head")
    assert launch(tenancy.app, *gate, *named, env=tenancy.env).returncode == 10
    result = launch(tenancy.app, "db", "upgrade", *named, env=tenancy.env)
    assert result.returncode == 0, result.stderr
    assert launch(tenancy.app, *gate, *named, env=tenancy.env).returncode == 0
    assert read_states(launch, tenancy, *named) == {"default": "at_head"}
    other = ("-x", f"tenant={tenancy.name('green')}")
    assert read_states(launch, tenancy, *other) == {"default": "empty"}


def test_tenants_have_one_lock(tenancy: Tenancy, launch: Launcher) -> None:
    """A tenant more changes nothing of the lock: two migrators would run at once."""
    tenancy.configure(LOOP, THERE)
    # MariaDB has no lock that one tenant could share with all the others.
    tenancy.add("blue", *(["green"] if tenancy.kind == "mariadb" else []))
    (tenancy.app / "migrations" / "versions" / "r2.go").unlink()
    first = start(tenancy.app, ("db", "upgrade"), tenancy.env)
    first.await_event("migration.applied")
    tenancy.add("red")
    second = launch(tenancy.app, "--lock-timeout", "0", "db", "upgrade", env=tenancy.env)
    let_go_on(tenancy.app, "r2")
    assert finish(first).code == 0
    assert second.returncode == 7
    assert second.last["event"] == "command.failed"


OWN_FILES = """
def run_online():
    from sqlalchemy import create_engine
    for tenant in ("blue", "green"):
        with create_engine(f"sqlite:///{tenant}.db").connect() as connection:
            context.configure(connection=connection, **get_arguments())
            with context.begin_transaction():
                context.run_migrations()
"""


def test_tenants_with_a_database_each(tmp_path: Path, launch: Launcher) -> None:
    """Databases that only `env.py` knows are told apart as schemas of one are."""
    app = write_app(tmp_path / "app", ["    pass"])
    env_py = app / "migrations" / "env.py"
    source = env_py.read_text()
    before, behind = source.index("def run_online"), source.index("\nset_up_logging()")
    env_py.write_text(f"{source[:before]}{OWN_FILES.lstrip()}\n{source[behind:]}")
    env = {"DATABASE_URL": "sqlite:///main.db"}
    assert launch(app, "db", "upgrade", env=env).returncode == 0
    (app / "blue.db").unlink()
    assert launch(app, "--head-timeout", "0", "wait", "head", env=env).returncode == 10
    result = launch(app, "db", "upgrade", env=env)
    assert result.returncode == 0, result.stderr
    assert result.last["from"] == {"default/blue.db": [], "default/green.db": ["r2"]}
    assert result.last["applied"] == ["r1", "r2"]


SHARDS = """

def run_online():
    from sqlalchemy import create_engine
    for url in os.environ["SHARDS"].split():
        with create_engine(url).connect() as connection:
            context.configure(connection=connection)
            with context.begin_transaction():
                context.run_migrations()
"""


def test_shards_of_one_name(
    postgres15: Postgres, postgres18: Postgres, tmp_path: Path, launch: Launcher
) -> None:
    """Databases that are called the same on two servers are two."""
    app = write_app(tmp_path / "app", [])
    env_py = app / "migrations/env.py"
    source = env_py.read_text()
    before, behind = source.index("def run_online"), source.index("\nset_up_logging()")
    env_py.write_text(f"import os\n{source[:before]}{SHARDS.lstrip()}\n{source[behind:]}")
    urls = []
    for server in (postgres15, postgres18):
        server.execute("DROP DATABASE IF EXISTS shard", f"CREATE DATABASE shard OWNER {USER}")
        urls.append(render_url(make_url(server.create_database().url()).set(database="shard")))
    env = {"DATABASE_URL": f"sqlite:///{tmp_path}/x.db", "SHARDS": urls[1]}
    assert launch(app, "db", "upgrade", env=env).returncode == 0
    env["SHARDS"] = " ".join(urls)
    gate = launch(app, "wait", "head", env={**env, "MIGRATE_HEAD_TIMEOUT": "0"})
    assert gate.returncode == 10, gate.stderr
    done = launch(app, "db", "upgrade", env=env)
    assert done.last["applied"] == ["r1"], done.last
    assert [*done.last["to"].values()] == [["r1"], ["r1"]]
    for server in (postgres15, postgres18):
        server.execute("DROP DATABASE shard WITH (FORCE)")


def test_tenants_without_the_application(tenancy: Tenancy, launch: Launcher) -> None:
    """The version table of one tenant is no unknown one beside another that is empty."""
    tenancy.add("blue")
    (tenancy.app / "app.py").unlink()
    assert launch(tenancy.app, "db", "upgrade", env=tenancy.env).returncode == 0
    tenancy.add("green")
    result = launch(tenancy.app, "db", "upgrade", env=tenancy.env)
    assert result.returncode == 0, result.stderr
    assert result.last["applied"] == ["r1", "r2"]
