"""What the library's tests share: small applications, and ways to run `flask db`."""

import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import NullPool, create_engine, inspect, text

import old_environments as old
from flask_migrate import Migrate
from sidecar_runs import Launcher
from zygote import Zygote, zygote_of

# The body of an app.py; HERE is its folder. The database object and Migrate follow.
HEAD = """
from pathlib import Path

from flask import Flask
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy

HERE = Path(__file__).parent
app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{HERE}/main.db"
"""

PERSON = """
class Person(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    name = db.Column(db.String(50))
"""

SINGLE = f"{HEAD}\ndb = SQLAlchemy(app)\nmigrate = Migrate(app, db)\n{PERSON}"

MULTIDB = f"""{HEAD}
app.config["SQLALCHEMY_BINDS"] = {{"users": f"sqlite:///{{HERE}}/users.db"}}
db = SQLAlchemy(app)
migrate = Migrate(app, db)
{PERSON}

class Account(db.Model):
    __bind_key__ = "users"
    id = db.Column(db.Integer, primary_key=True)
"""


@dataclass(frozen=True)
class Result:
    """What one `flask` command left."""

    arguments: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str


def write_app(folder: Path, source: str = SINGLE) -> Path:
    """Write an application into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "app.py").write_text(source, encoding="utf-8")
    return folder


def write_repository(folder: Path, environment: str, script: str = old.SCRIPT) -> None:
    """Write a migration repository without revisions, its `env.py` and template as given."""
    (folder / "migrations/versions").mkdir(parents=True)
    (folder / "migrations/env.py").write_text(environment, encoding="utf-8")
    (folder / "migrations/alembic.ini").write_text(old.INI, encoding="utf-8")
    (folder / "migrations/script.py.mako").write_text(script, encoding="utf-8")


def flask(
    cwd: Path,
    *commands: str | Sequence[str],
    fail: bool = False,
    env: dict[str, str] | None = None,
    warnings: str = "error",
    python: str | Path = sys.executable,
) -> list[Result]:
    """Run `flask` commands one after the other, with warnings as errors.

    Args:
        cwd: folder of the application.
        *commands: the arguments of each; a text is split at spaces.
        fail: the last command is expected to fail; the others never are.
        env: variables to add.
        warnings: value for `python -W`.
        python: the interpreter, by default the tests' own.
    """
    lists = [c.split() if isinstance(c, str) else [*map(str, c)] for c in commands]
    command = (str(python), "-W", warnings)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if python == sys.executable:
            zygote = zygote_of(command)
        else:
            zygote = stack.enter_context(Zygote(command))
        launch = Launcher(folder, "flask", zygote)
        done = [launch(cwd, *arguments, env=env) for arguments in lists]
    results = [
        Result(tuple(arguments), one.returncode, one.stdout, one.stderr)
        for arguments, one in zip(lists, done, strict=True)
    ]
    for result in results[: len(results) - fail]:
        assert result.returncode == 0, result
    assert not fail or results[-1].returncode != 0, results[-1]
    return results


@dataclass(frozen=True)
class Project:
    """An application of the test's own process, and its folder."""

    folder: Path
    app: Flask
    db: SQLAlchemy
    migrate: Migrate

    @property
    def directory(self) -> Path:
        """The migration repository."""
        return self.folder / "migrations"

    @property
    def revisions(self) -> list[Path]:
        """The revision files."""
        return sorted((self.directory / "versions").glob("*.py"))

    def tables(self, name: str = "main") -> set[str]:
        """Return the tables of one database, less Alembic's own."""
        return tables_of(self.folder / f"{name}.db")


def make_project(
    folder: Path, *binds: str, models: Callable[[Any], object] | None = None, **options: Any
) -> Project:
    """Make an application around SQLite files without pools, so that nothing stays open.

    Args:
        folder: where the databases and the repository will lie.
        *binds: names of further databases.
        models: declares models on the database object; by default a Person, and a table
            `<bind>_thing` in each further database.
        **options: for `Migrate`.
    """
    app = Flask("project")
    app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{folder}/main.db"
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"poolclass": NullPool}
    app.config["SQLALCHEMY_BINDS"] = {
        name: {"url": f"sqlite:///{folder}/{name}.db", "poolclass": NullPool} for name in binds
    }
    db = SQLAlchemy(app)
    if models is None:
        declare_models(db, binds)
    else:
        models(db)
    options.setdefault("directory", str(folder / "migrations"))
    return Project(folder, app, db, Migrate(app, db, **options))


def declare_models(db: Any, binds: Sequence[str] = ()) -> None:
    """Declare a table in each database."""
    db.Table("person", db.Column("id", db.Integer, primary_key=True))
    for name in binds:
        db.Table(f"{name}_thing", db.Column("id", db.Integer, primary_key=True), bind_key=name)


def tables_of(path: Path) -> set[str]:
    """Return the tables of a SQLite file, less Alembic's own; of a missing file, none."""
    if not path.exists():
        return set()
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)
    return {*inspect(engine).get_table_names()} - {"alembic_version"}


def query(path: Path, statement: str) -> list[tuple[Any, ...]]:
    """Run one statement in a SQLite file, and return its rows."""
    with create_engine(f"sqlite:///{path}", poolclass=NullPool).begin() as connection:
        result = connection.execute(text(statement))
        return [tuple(row) for row in result] if result.returns_rows else []


def versions_of(path: Path) -> list[str]:
    """Return the revisions that a SQLite file is at."""
    return sorted(row[0] for row in query(path, "SELECT version_num FROM alembic_version"))
