"""Says more about the errors that Alembic states in its own terms."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any, NoReturn

from alembic.script.revision import MultipleHeads, ResolutionError
from alembic.util import CommandError

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

logger = logging.getLogger("flask_migrate")


def explain_errors(
    error: BaseException | None, script: ScriptDirectory, found: Collection[str]
) -> None:
    """Raise the error again in words that help, or return where there is nothing to add.

    Args:
        error: what a command raised, or None.
        script: the repository.
        found: revisions that the databases hold.

    Raises:
        CommandError: in place of the one given, which becomes its cause.
    """
    if isinstance(error, ValueError) and "Constraint must have a name" in str(error):
        error.add_note(
            "SQLite alters tables by copying them, which needs constraints that have names: give "
            "the constraint a name, or the models' MetaData a naming_convention."
        )
    if type(error) is not CommandError:
        return
    cause = error.__cause__
    if isinstance(cause, ResolutionError):
        _explain_unknown(error, str(cause.argument), script, found)
    elif isinstance(cause, MultipleHeads):
        _explain_heads(error, script)
    elif str(error).startswith("Target database is not up to date"):
        current, heads = _join(found) or "nothing", _join(script.get_heads())
        raise CommandError(
            f"Target database is not up to date: it is at {current}, the head is {heads}. "
            "Upgrade it first."
        ) from error


def _explain_unknown(
    error: CommandError, argument: str, script: ScriptDirectory, found: Collection[str]
) -> NoReturn:
    if argument in found:
        raise CommandError(
            f"Can't locate revision identified by '{argument}': the database is at this revision, "
            f"but {script.dir} does not have it. The database is ahead of this code, or belongs "
            "to another history. Deploy the code that has the revision, or downgrade with it."
        ) from error
    raise CommandError(
        f"Can't locate revision identified by '{argument}' in {script.dir}. The command 'history' "
        "lists the revisions."
    ) from error


def _explain_heads(error: CommandError, script: ScriptDirectory) -> NoReturn:
    raise CommandError(
        f"{error} The heads are {_join(script.get_heads())}; the command 'merge heads' joins them."
    ) from error


def _join(revisions: Iterable[str]) -> str:
    return ", ".join(sorted(revisions))


def warn_without_models(metadata: Any) -> None:
    """Warn where models and database are about to be compared, but there are no models."""
    several = metadata if isinstance(metadata, (list, tuple)) else [metadata]
    if not any(one is not None and one.tables for one in several):
        logger.warning(
            "No models were imported, so every table that the database has would be dropped: "
            "import the modules that define them where the application is created."
        )
