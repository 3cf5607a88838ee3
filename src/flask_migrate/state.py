"""What `env.py` finds in `app.extensions["migrate"]`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from flask import current_app

from .invocation import Names, StrPath

if TYPE_CHECKING:
    from .config import Config

# Arguments of Alembic's context that always have a value.
CONTEXT_DEFAULTS = ("compare_type", "render_as_batch")


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

    def call_configure_callbacks(self, config: Config) -> Config:
        """Hand the configuration through the application's functions."""

    def get_config(
        self,
        directory: StrPath | None = None,
        x_arg: Names | None = None,
        opts: Sequence[str] | Mapping[str, Any] | None = None,
    ) -> Config:
        """Make Alembic's configuration for one command."""


class ConfigureArguments(dict[str, Any]):
    """Arguments for `context.configure()`, as `env.py` finds them.

    An `env.py` that passes one of our defaults itself beside `**configure_args` would end in a
    TypeError, so iteration leaves the defaults out, while look-up, `pop` and `del` know them.

    Args:
        given: what was given to `Migrate`.
        defaults: what is applied where `env.py` gives no value.
    """

    def __init__(self, given: Mapping[str, Any], defaults: dict[str, Any]) -> None:
        super().__init__(given)
        self.defaults = defaults

    def __missing__(self, key: str) -> Any:
        """Look up a default."""
        return self.defaults[key]

    def __contains__(self, key: object) -> bool:
        """Tell whether a value, or a default, is there."""
        return super().__contains__(key) or key in self.defaults

    def __delitem__(self, key: str) -> None:
        """Take a value, or a default, out."""
        self.pop(key)

    def get(self, key: str, default: Any = None) -> Any:
        """Give a value, that of a default included."""
        return super().get(key, self.defaults.get(key, default))

    def pop(self, key: str, *default: Any) -> Any:
        """Take a value out, that of a default included."""
        fallback = (self.defaults.pop(key),) if key in self.defaults else default
        return super().pop(key, *fallback)


class _MigrateConfig:
    """The state of one application; `env.py` reads its attributes, and some change them."""

    def __init__(self, migrate: Extension, db: Database | None, **kwargs: Any) -> None:
        self.migrate = migrate
        self.db: Any = db
        self.directory = migrate.directory
        self.configure_args = ConfigureArguments(
            {name: value for name, value in kwargs.items() if name not in CONTEXT_DEFAULTS},
            {name: kwargs[name] for name in CONTEXT_DEFAULTS if name in kwargs},
        )

    @property
    def metadata(self) -> Any:
        """The models' metadata; `env.py` files of the first releases take it from here."""
        return self.db.metadata


def find_state() -> _MigrateConfig:
    """Find the state of the current application."""
    state: _MigrateConfig = current_app.extensions["migrate"]
    return state
