"""A user's program that calls every public name; `mypy --strict` checks it, nothing runs it."""

from pathlib import Path
from typing import Any

from alembic.runtime.migration import MigrationContext
from alembic.script import Script
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from flask_sqlalchemy_lite import SQLAlchemy as Lite
from sqlalchemy import Column, Engine, MetaData, create_engine
from sqlalchemy.types import TypeEngine

import flask_migrate
from flask_migrate import (
    Config,
    Migrate,
    alembic_version,
    branches,
    catch_errors,
    check,
    current,
    downgrade,
    edit,
    ensure_version,
    heads,
    history,
    init,
    list_templates,
    merge,
    migrate,
    revision,
    show,
    stamp,
    upgrade,
)

app = Flask(__name__)


class Getter:
    """A database object in the manner of Alchemical, which has no types of its own."""

    def get_engine(self, bind: str | None = None) -> Engine:
        """Give an engine."""
        return create_engine(f"sqlite:///{bind}")


# Any of these database objects, with what a user may add.
extension = Migrate(app, SQLAlchemy(app), directory=Path("migrations"), compare_type=False)
Migrate(app, Lite(app), "migrations", "db", target_metadata=[MetaData(), MetaData()])
Migrate(app, Getter(), version_table="versions")


def compare(
    context: MigrationContext,
    inspected: Column[Any],
    declared: Column[Any],
    inspected_type: TypeEngine[Any],
    declared_type: TypeEngine[Any],
) -> bool | None:
    """Compare two types in place of Alembic."""
    if context.as_sql or inspected.name != declared.name:
        return None
    return repr(inspected_type) != repr(declared_type)


Migrate(app, Lite(app), compare_type=compare).init_app(app, compare_type=compare)
later = Migrate()
later.init_app(app, SQLAlchemy(), directory="elsewhere", render_as_batch=False)


@extension.configure
def first(config: Config) -> Config:
    """Change the configuration."""
    config.set_main_option("file_template", "%%(rev)s")
    return config


changed: Config = first(Config())
config: Config = extension.get_config("migrations", x_arg=["a=1"], opts=["autogenerate"])
config = extension.call_configure_callbacks(config)
directory: str = extension.directory
folder: str = Config(template_directory="templates").get_template_directory()
major, minor, patch = alembic_version
total: int = major + minor + patch


@catch_errors
def command(count: int) -> str:
    """Be a command of the application's own."""
    return str(count)


text: str = command(5)

list_templates()
init("migrations", multidb=True, template=Path("templates/own"), package=True, pyproject=True)
written: Script | list[Script | None] | None = revision(message="one", depends_on=["aa", "bb"])
compared: Script | list[Script | None] | None = migrate(message="two", x_arg="a=1")
merged: Script | None = merge(revisions=["aa", "bb"], splice=True)
if isinstance(written, Script):
    name: str = written.revision
edit(revision="head")
upgrade(Path("migrations"), "head", sql=True, tag="tag", x_arg=["a=1"], bind="users")
downgrade(revision="-1", bind=["users", "default"])
show(revision="head")
history(rev_range="aa:bb", verbose=True, indicate_current=True)
heads(verbose=True, resolve_dependencies=True)
branches(verbose=True)
current(check_heads=True, bind="users")
stamp(revision=["aa", "bb"], purge=True)
check(bind="users")
ensure_version(sql=True)
flask_migrate.upgrade()
