"""What autogenerate compares: the models, and each database less the sidecar's own table."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sqlalchemy import inspect

from .databases import list_databases

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext

# The sidecar's lock of kind `table`. The sidecar has this name a second time, because the process
# that it drives may run with an upstream library, which has no such name to import.
LEASE_TABLE = "flask_migrate_sidecar_lock"

logger = logging.getLogger("flask_migrate")


def leave_out_lease(include_name: Callable[..., bool] | None) -> Callable[..., bool]:
    """Make autogenerate blind to the lease table, which it would propose to drop.

    Args:
        include_name: what the application gives Alembic; it decides about all other names.
    """

    def include(name: str | None, type_: str, parents: Any) -> bool:
        if type_ == "table" and name == LEASE_TABLE:
            return False
        return include_name is None or include_name(name, type_, parents)

    return include


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
            ", ".join(sorted(tables)),
        )
    elif len(list_databases()) <= 1:
        logger.warning(
            "No models were imported, so there is nothing to compare: import the modules that "
            "define them where the application is created."
        )
