"""Loads the application: imports or creates it, or makes one around the migrations alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click
from flask.cli import NoAppException

from flask_migrate_sidecar.database.errors import find_driver_error
from flask_migrate_sidecar.errors import (
    AppError,
    ConfigurationError,
    Interrupted,
    RefusedError,
    SidecarError,
    UnavailableError,
)
from flask_migrate_sidecar.log.frames import know_folder
from flask_migrate_sidecar.log.logger import get_logger
from flask_migrate_sidecar.log.origin import describe_origin
from flask_migrate_sidecar.log.redaction import find_configured, secrets
from flask_migrate_sidecar.settings.options import Settings

from .discovery import find_application
from .import_failure import explain_import_error
from .import_limit import ImportTimeoutError, limit_time
from .migrations_at_import import migrations_left_to_the_run
from .migrations_only import (
    MIGRATIONS_ONLY,
    UNKNOWN,
    describe_drivers,
    find_repository,
    make_application,
    wants_migrations_only,
)
from .versions import warn_of_upstream

if TYPE_CHECKING:
    from flask import Flask

logger: Final = get_logger(__name__)

MOUNTED: Final = "mounted"


@dataclass(frozen=True)
class Application:
    """A loaded application.

    Args:
        app: the Flask application.
        state: what Flask-Migrate left in `app.extensions["migrate"]`.
        group: the commands, whatever the application called them.
        source: `mounted`, or `migrations-only`.
    """

    app: Flask
    state: Any
    group: click.Group
    source: str

    @property
    def command(self) -> str:
        """The name of the group."""
        return str(getattr(self.state.migrate, "command", None) or "db")


def enter_folder(settings: Settings) -> Path:
    """Make the application's folder the working directory, and importable.

    Raises:
        ConfigurationError: there is no such folder.
    """
    given = settings.app_dir or "."
    try:
        folder = Path(given).absolute()
        os.chdir(folder)
        with os.scandir(folder):
            pass  # Python finds no module in a folder that it cannot list
    except OSError as error:
        raise ConfigurationError(
            f"--app-dir {given}: {error.strerror}",
            hint="check what is mounted there, and that this user may enter and list it",
        ) from error
    for path in (folder / "src", folder):
        if path.is_dir() and str(path) not in sys.path:
            sys.path.insert(0, str(path))
    return folder


def load_application(
    settings: Settings,
    arguments: Sequence[str] = (),
    force: Callable[[Any], NoReturn] | None = None,
) -> Application:
    """Import or create the application, or make one around the migrations alone.

    Args:
        settings: the settings.
        arguments: what stands behind the command; `-d` there names a repository.
        force: ends the process where an import ends neither by itself nor at `--app-timeout`.

    Raises:
        ConfigurationError: there is nothing to import; the driver of its database is missing.
        AppError: it cannot be imported or created, or has no `Migrate`.
        UnavailableError, RefusedError: it queries its database at import, and that failed.
    """
    started, folder = monotonic(), Path.cwd()
    if wants_migrations_only(settings, arguments):
        app, source = make_application(settings, os.environ, arguments), MIGRATIONS_ONLY
    elif settings.version_table is not None:
        raise ConfigurationError(
            "--version-table is for migrations without their application, which says where",
            hint="leave it out, or run without the application: --app none",
        )
    else:
        repository = find_repository(settings, arguments)
        with (
            limit_time(settings.app_timeout, force),
            migrations_left_to_the_run(repository) as left,
        ):
            try:
                app, source = _import_application(settings.app), MOUNTED
            except (UnavailableError, RefusedError) as error:
                error.fields |= {"left": left} if left else {}
                raise
    # Some applications change it at import, and the repository's path is relative to it.
    os.chdir(folder)
    know_folder(Path(app.root_path))
    secrets.add(find_configured(app.config))
    application = _inspect(app, source)
    logger.info(
        "app.loaded",
        app=app.import_name,
        source=source,
        folder=str(folder),
        duration_ms=round((monotonic() - started) * 1000),
        **(
            {"drivers": describe_drivers(app), "hint": UNKNOWN} if source == MIGRATIONS_ONLY else {}
        ),
    )
    warn_of_upstream(application.group)
    return application


def _import_application(name: str | None) -> Flask:
    try:
        return find_application(name)
    except NoAppException as error:
        cause = error.__cause__ or error.__context__
        if isinstance(cause, ImportError) or (cause and find_driver_error(cause) is not None):
            raise _explain(cause, name) from cause
        raise AppError(
            str(error).strip().splitlines()[0],
            hint="name the application as --app MODULE:NAME or --app 'MODULE:FACTORY(ARGUMENTS)', "
            "or run the migrations without it: --app none",
        ) from error
    except (SidecarError, Interrupted, ImportTimeoutError):
        raise
    except BaseException as error:
        # Also SystemExit, a KeyboardInterrupt that no signal sent, and what else derives from it.
        raise _explain(error, name) from error


def _explain(error: BaseException, name: str | None) -> SidecarError:
    found = explain_import_error(error, name)
    found.fields = {**describe_origin(error), **found.fields}
    return found


def _inspect(app: Flask, source: str) -> Application:
    """Find the migration commands of the application."""
    state = app.extensions.get("migrate")
    if state is None or not hasattr(state, "migrate"):
        raise AppError(
            f"the application {app.import_name!r} has no Migrate",
            hint="add Migrate(app, db) where the application is created",
        )
    name = getattr(state.migrate, "command", None) or "db"
    group = app.cli.commands.get(name)
    if not isinstance(group, click.Group) and not hasattr(state.migrate, "command"):
        # Flask-Migrate 3 does not add its commands to the application: Flask finds them by their
        # entry point, which `flask_migrate.cli.db` is.
        from flask_migrate.cli import db as group
    if not isinstance(group, click.Group):
        raise AppError(
            f"the application {app.import_name!r} has no group of commands called {name!r}",
            hint="call Migrate.init_app() where the application is created",
        )
    return Application(app, state, group, source)
