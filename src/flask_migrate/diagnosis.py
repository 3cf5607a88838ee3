"""Says more about the errors that Alembic states in its own terms."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from alembic.script import ScriptDirectory
from alembic.script.revision import MultipleHeads, ResolutionError
from alembic.util import CommandError
from flask import current_app
from sqlalchemy import inspect

from .databases import list_databases

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext

logger = logging.getLogger("flask_migrate")


@contextmanager
def explain_errors(config: Config, found: Collection[str]) -> Iterator[None]:
    """Raise errors of a command again in words that help.

    Args:
        config: the command's configuration.
        found: filled, while the command runs, with the revisions that the databases hold.

    Raises:
        CommandError: in place of the error that it has as its cause.
    """
    try:
        yield
    except CommandError as error:
        if type(error) is CommandError:
            _explain_refusal(error, config, found)
        raise
    except ValueError as error:
        if "Constraint must have a name" in str(error):
            error.add_note(
                "SQLite alters tables by copying them, which needs constraints that have names: "
                "give the constraint a name, or the models' MetaData a naming_convention."
            )
        raise
    except AttributeError as error:
        if current_app.extensions["migrate"].db is None and error.obj is None:
            raise CommandError(
                "Migrate was not given the application's database object: use Migrate(app, db) or "
                "migrate.init_app(app, db)."
            ) from error
        raise
    except OSError as error:
        _explain_file(error)
        raise


def _explain_refusal(error: CommandError, config: Config, found: Collection[str]) -> None:
    cause = error.__cause__
    if isinstance(cause, MultipleHeads):
        raise CommandError(f"{error} {_name_heads(cause.heads)}") from error
    if isinstance(cause, ResolutionError):
        _explain_unknown(error, str(cause.argument), config, found)
    if str(error).startswith("Target database is not up to date"):
        heads = ScriptDirectory.from_config(config).get_heads()
        raise CommandError(
            f"Target database is not up to date: it is at {_join(found) or 'nothing'}. "
            + (f"The head is {heads[0]}: upgrade first." if len(heads) == 1 else _name_heads(heads))
        ) from error


def _explain_unknown(
    error: CommandError, argument: str, config: Config, found: Collection[str]
) -> NoReturn:
    folder = config.get_main_option("script_location")
    if argument in found:
        raise CommandError(
            f"Can't locate revision identified by '{argument}': the database is at this revision, "
            f"but {folder} does not have it. The database is ahead of this code, or belongs to "
            "another history. Deploy the code that has the revision, or downgrade with it."
        ) from error
    raise CommandError(
        f"Can't locate revision identified by '{argument}' in {folder}. The command 'history' "
        "lists the revisions."
    ) from error


def _name_heads(heads: Iterable[str]) -> str:
    return f"The heads are {_join(heads)}; the command 'merge heads' joins them."


def _explain_file(error: OSError) -> None:
    """Name the way out where an `env.py` for several databases writes files of its own."""
    if str(error.filename or "").endswith(".sql"):
        raise CommandError(
            f"{error.filename} cannot be written: {error.strerror}. This env.py writes the SQL of "
            "each database into the working directory: choose a writable one, or an env.py of "
            "the template flask-multidb, which prints one script."
        ) from error


def _join(revisions: Iterable[str]) -> str:
    return ", ".join(sorted(revisions))


def warn_without_models(context: MigrationContext, metadata: Any) -> None:
    """Warn where models and a database are about to be compared, but there are no models."""
    several = metadata if isinstance(metadata, (list, tuple)) else [metadata]
    # Without any metadata Alembic itself refuses.
    if context.connection is None or any(one is None or one.tables for one in several):
        return
    tables = {*inspect(context.connection).get_table_names()} - {context.version_table}
    if tables:
        logger.warning(
            "No models were imported, so every table that the database has would be dropped "
            "(%s): import the modules that define the models where the application is created.",
            _join(tables),
        )
    elif len(list_databases()) <= 1:
        logger.warning(
            "No models were imported, so there is nothing to compare: import the modules that "
            "define them where the application is created."
        )
