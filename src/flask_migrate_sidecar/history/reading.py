"""What the databases hold: the revisions in the version tables that `env.py` configures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from alembic.runtime.environment import EnvironmentContext

from flask_migrate_sidecar.application.loading import Application
from flask_migrate_sidecar.log import logger as log

from .environment import Environments

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

# The current revisions by the database's name.
Readings = Mapping[str, tuple[str, ...]]


def read_databases(
    application: Application,
    environments: Environments,
    config: Any,
    script: ScriptDirectory,
    **options: Any,
) -> Readings:
    """Read which revisions each database holds, through the repository's own `env.py`.

    It is run as for `alembic current`, so custom version tables, schemas and tenants are right.
    """
    found: dict[str, tuple[str, ...]] = {}

    def collect(revisions: Any, context: MigrationContext) -> list[Any]:
        add_reading(found, environments.name_database(context), revisions)
        return []

    environment = EnvironmentContext(config, script, fn=collect, dont_mutate=True, **options)
    with _silent(), _keep_arguments(application), environment:
        script.run_env()
    return found


def add_reading(found: dict[str, tuple[str, ...]], name: str, revisions: Any) -> str:
    """Note what a database holds; an `env.py` with tenants comes to the same one repeatedly."""
    key, number = name, 1
    while key in found:
        number += 1
        key = f"{name}/{number}"
    found[key] = tuple(revisions or ())
    return key


@contextmanager
def _silent() -> Iterator[None]:
    """Look without a word of Alembic's in the log."""
    log.quiet.set()
    try:
        yield
    finally:
        log.quiet.clear()


@contextmanager
def _keep_arguments(application: Application) -> Iterator[None]:
    """Let `env.py` change the dictionaries that it finds, but not for the command after this."""
    state, settings = application.state, application.app.config
    arguments, binds = getattr(state, "configure_args", None), settings.get("SQLALCHEMY_BINDS")
    if arguments is not None:
        state.configure_args = dict(arguments)
    if binds is not None:
        settings["SQLALCHEMY_BINDS"] = dict(binds)
    try:
        yield
    finally:
        if arguments is not None:
            state.configure_args = arguments
        if binds is not None:
            settings["SQLALCHEMY_BINDS"] = binds
