"""The migration repository: where it is, and Alembic's configuration of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from flask_migrate_sidecar.application.loading import Application
from flask_migrate_sidecar.database.errors import is_limit_of_process
from flask_migrate_sidecar.errors import ConfigurationError, MigrationError
from flask_migrate_sidecar.log.frames import know_folder

from .failure import explained


@dataclass(frozen=True)
class Repository:
    """A migration repository that is there.

    Args:
        config: Alembic's configuration, as the application's Flask-Migrate makes it.
        folder: where it lies.
    """

    config: Any
    folder: Path

    @property
    def has_environment_for_files(self) -> bool:
        """Whether commands that only write files run `env.py` too."""
        return str(self.config.get_main_option("revision_environment") or "").lower() == "true"


def open_repository(
    application: Application, directory: str | None, x_arg: Any = None
) -> Repository:
    """Open the repository of an application.

    Args:
        application: it knows the repository's usual place.
        directory: another one.
        x_arg: arguments for `env.py`.

    Raises:
        ConfigurationError: there is none, or its alembic.ini cannot be read.
    """
    try:
        with explained():
            config = application.state.migrate.get_config(directory, x_arg=x_arg)
            folder = Path(config.get_main_option("script_location"))
        is_there = folder.is_dir()
    except (MigrationError, OSError) as error:
        missed = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(missed, OSError) or is_limit_of_process(missed):
            raise
        raise _explain_unreadable(str(missed.filename), str(missed.strerror)) from error
    if not is_there:
        raise ConfigurationError(
            f"there is no migration repository at {folder.absolute()}",
            hint="mount it, name its folder with --directory, or make one with 'db init'",
        )
    know_folder(folder)
    ini = config.config_file_name
    # An env.py that reads none need not have one.
    if ini and os.path.lexists(ini):
        _check_readable(Path(ini))
    return Repository(config, folder)


def send_results_to(application: Application, results: TextIO) -> None:
    """Let Alembic print what a command exists to print to the real stdout."""

    def redirect(config: Any) -> Any:
        config.stdout = config.output_buffer = results
        return config

    application.state.migrate.configure_callbacks.append(redirect)


def _check_readable(ini: Path) -> None:
    try:
        ini.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and is_limit_of_process(error):
            raise
        reason = str(error.strerror) if isinstance(error, OSError) else "it is not UTF-8"
        raise _explain_unreadable(str(ini), reason) from error


def _explain_unreadable(file: str, reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"{file} cannot be read: {reason}",
        hint="it belongs to the repository: check what is mounted, and the file's rights",
    )
