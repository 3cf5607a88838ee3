"""What `env.py` finds in `app.extensions["migrate"]`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from flask import current_app, has_app_context

from .invocation import Names, StrPath, group_options

if TYPE_CHECKING:
    from .config import Config

# Where an application keeps the state of each group of commands by its name; None is the last one.
GROUPS = "flask_migrate"


class EngineOwner(Protocol):
    """A database object in the manner of Flask-SQLAlchemy 3 and Flask-SQLAlchemy-Lite."""

    @property
    def engine(self) -> Any:
        """The engine of the main database."""


class EngineGetter(Protocol):
    """A database object in the manner of Flask-SQLAlchemy 2 and Alchemical."""

    def get_engine(self) -> Any:
        """Give the engine of the main database."""


Database = EngineOwner | EngineGetter


class Extension(Protocol):
    """What the commands ask of `Migrate`, which makes the state and so cannot be named here."""

    directory: str
    command: str

    def call_configure_callbacks(self, config: Config) -> Config:
        """Hand the configuration through the application's functions."""

    def get_config(
        self,
        directory: StrPath | None = None,
        x_arg: Names | None = None,
        opts: Sequence[str] | Mapping[str, Any] | None = None,
    ) -> Config:
        """Make Alembic's configuration for one command."""


class _MigrateConfig:
    """The state of one application; `env.py` reads its attributes, and some change them."""

    def __init__(self, migrate: Extension, db: Database | None, **kwargs: Any) -> None:
        self.migrate = migrate
        self.db: Any = db
        self.directory = migrate.directory
        self.configure_args: dict[str, Any] = kwargs
        # The repository of another `Migrate` whose group of commands has the same name.
        self.replaced: str | None = None

    @property
    def metadata(self) -> Any:
        """The models' metadata; `env.py` files of the first releases take it from here."""
        return self.db.metadata


_running: ContextVar[_MigrateConfig | None] = ContextVar("_running", default=None)


def keep_state(extensions: dict[str, Any], state: _MigrateConfig, command: str) -> None:
    """Keep what `Migrate.init_app()` made; two objects with a group each keep one each."""
    groups = extensions.setdefault(GROUPS, {})
    before = groups.get(command)
    if before is not None and before.migrate is not state.migrate:
        state.replaced = before.directory if before.directory != state.directory else None
    groups[command] = groups[None] = extensions["migrate"] = state


def find_state(directory: StrPath | None = None) -> _MigrateConfig:
    """Find the state of the current application.

    Where several `Migrate` objects serve it, the one that is meant is that of the running command,
    that of the group of `flask NAME ...`, that of the directory, and the last one.

    Args:
        directory: the migration repository that was given to a function.
    """
    found: _MigrateConfig = current_app.extensions["migrate"]
    groups: dict[str | None, _MigrateConfig] = current_app.extensions.get(GROUPS, {})
    # `extensions` is everyone's to write, and has the running state while a command runs.
    if found is _running.get() or found not in groups.values():
        return found
    command = group_options().get("command")
    if command is not None and command in groups:
        return groups[command]
    named = (state for state in groups.values() if directory and state.directory == str(directory))
    return next(named, groups[None])


def find_state_of(migrate: Extension) -> _MigrateConfig | None:
    """Find the state that a `Migrate` has in the current application, if it has one there."""
    if not has_app_context() or "migrate" not in current_app.extensions:
        return None
    groups = current_app.extensions.get(GROUPS, {})
    states = [find_state(), *groups.values()]
    return next((state for state in states if state.migrate is migrate), None)


def list_version_tables() -> set[str]:
    """Name the version tables of an application that several `Migrate` objects serve."""
    states = {*current_app.extensions.get(GROUPS, {}).values()}
    tables = (state.configure_args.get("version_table", "alembic_version") for state in states)
    return {*tables} if len(states) > 1 else set()


@contextmanager
def use_state(state: _MigrateConfig) -> Iterator[None]:
    """Let `env.py` find a state in `app.extensions["migrate"]` while its command runs."""
    extensions = current_app.extensions
    before, extensions["migrate"] = extensions["migrate"], state
    token = _running.set(state)
    try:
        yield
    finally:
        _running.reset(token)
        extensions["migrate"] = before
