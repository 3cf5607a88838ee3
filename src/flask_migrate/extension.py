"""The extension object, which an application makes once and hands its database object to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

from .arguments import fit_arguments
from .invocation import Names, StrPath, from_command_line, group_options
from .state import Database, _MigrateConfig, find_state_of, keep_state

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext
    from flask import Flask
    from sqlalchemy import Column
    from sqlalchemy.types import TypeEngine

    from .config import Config

    # Alembic's own words for it: whether to compare types, or what decides about two of them.
    CompareType = (
        bool
        | Callable[
            [MigrationContext, Column[Any], Column[Any], TypeEngine[Any], TypeEngine[Any]],
            bool | None,
        ]
    )

Callback = TypeVar("Callback", bound=Callable[..., Any])


class Migrate:
    """Add migrations to an application.

    Args:
        app: the application; it is initialised at once where `db` is given too.
        db: the application's database object.
        directory: the migration repository, relative to the working directory.
        command: name of the group of commands, `flask NAME ...`.
        compare_type: let autogenerate compare column types, or what it compares them with.
        render_as_batch: let autogenerate write batch operations, which SQLite needs.
        **kwargs: passed on to Alembic's `EnvironmentContext.configure()`; on SQLite
            `transactional_ddl=True` runs revisions in a transaction that is real.
    """

    def __init__(
        self,
        app: Flask | None = None,
        db: Database | None = None,
        directory: StrPath = "migrations",
        command: str = "db",
        compare_type: CompareType = True,
        render_as_batch: bool = True,
        **kwargs: Any,
    ) -> None:
        self.configure_callbacks: list[Callable[[Any], Any]] = []
        self.db = db
        self.command = command
        self._directory = str(directory)
        self._states: WeakSet[_MigrateConfig] = WeakSet()
        # What holds for every application, whatever one of them is given by `init_app()`.
        self._common: tuple[str, str, dict[str, Any]] | None = None
        self.alembic_ctx_kwargs: dict[str, Any] = {
            **kwargs,
            "compare_type": compare_type,
            "render_as_batch": render_as_batch,
        }
        if app is not None and db is not None:
            self.init_app(app, db, directory)

    @property
    def directory(self) -> str:
        """The repository of the current application, else of the one that was initialised last."""
        state = find_state_of(self)
        return self._directory if state is None else state.directory

    @directory.setter
    def directory(self, value: StrPath) -> None:
        """Change it for the current application, else for all of them."""
        state = find_state_of(self)
        for one in [*self._states] if state is None else [state]:
            one.directory = str(value)
        self._directory = str(value)
        if state is None and self._common is not None:
            self._common = (self._directory, *self._common[1:])

    def init_app(
        self,
        app: Flask,
        db: Database | None = None,
        directory: StrPath | None = None,
        command: str | None = None,
        compare_type: CompareType | None = None,
        render_as_batch: bool | None = None,
        **kwargs: Any,
    ) -> None:
        """Register with an application; arguments not given keep the constructor's values.

        The attributes show those of the application that was initialised last.
        """
        from .cli import db as group

        if self._common is None:
            self._common = (self._directory, self.command, {**self.alembic_ctx_kwargs})
        folder, name, common = self._common
        self.db = db if db is not None else self.db
        self.command = command or name
        self._directory = str(directory or folder)
        given = {"compare_type": compare_type, "render_as_batch": render_as_batch}
        own = {**kwargs, **{k: v for k, v in given.items() if v is not None}}
        self.alembic_ctx_kwargs = {**common, **own}
        state = _MigrateConfig(self, self.db, **self.alembic_ctx_kwargs)
        state.directory = self._directory
        self._states.add(state)
        keep_state(app.extensions, state, self.command)
        app.cli.add_command(group, name=self.command)

    def configure(self, f: Callback) -> Callback:
        """Register a function that receives each `Config`, and may return another (decorator)."""
        self.configure_callbacks.append(f)
        return f

    def call_configure_callbacks(self, config: Config) -> Config:
        """Hand the configuration through the registered functions, in their order."""
        original = config
        for callback in self.configure_callbacks:
            config = callback(config)
            if config is None:
                raise TypeError(f"{callback!r} returned None; it must return a Config.")
        _carry_over(original, config)
        return config

    def get_config(
        self,
        directory: StrPath | None = None,
        x_arg: Names | None = None,
        opts: Sequence[str] | Mapping[str, Any] | None = None,
    ) -> Config:
        """Make Alembic's configuration for one command.

        Args:
            directory: the migration repository, by default the one of this object.
            x_arg: one or more `-x` arguments for `env.py`.
            opts: names that are set to True in `config.cmd_opts`, or names with values.
        """
        from argparse import Namespace

        from .config import load_config
        from .databases import list_urls

        group, state = group_options(), find_state_of(self)
        folder = str(directory or group.get("directory") or self.directory)
        config = load_config(folder, group.get("name") or "alembic")
        config.list_urls = list_urls
        if state is not None:
            config.attributes["flask_migrate_state"] = state
            environment = Path(folder, "env.py")
            state.configure_args = fit_arguments(state.configure_args, environment)
        extra = [x_arg] if isinstance(x_arg, str) else [*(x_arg or ())]
        values = opts if isinstance(opts, Mapping) else dict.fromkeys(opts or (), True)
        config.attributes["configure_logger"] = from_command_line.get()
        x_args = [*group.get("x_arg", ()), *extra]
        config.cmd_opts = Namespace(**{"x": x_args, "quiet": group.get("quiet", False), **values})
        return self.call_configure_callbacks(config)


def _carry_over(original: Config, config: Config) -> None:
    """Keep the options of the command, `--bind` among them, where a callback made a new object."""
    if config is not original:
        config.cmd_opts = original.cmd_opts if config.cmd_opts is None else config.cmd_opts
        for name, value in original.attributes.items():
            config.attributes.setdefault(name, value)
