"""What autogenerate compares: the models, and each database less the sidecar's own table."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sqlalchemy import MetaData, Table, inspect

from .databases import list_databases
from .seen import logger
from .state import list_version_tables

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext
    from sqlalchemy import Connection

# The sidecar's lock of kind `table`. The sidecar has this name a second time, because the process
# that it drives may run with an upstream library, which has no such name to import.
LEASE_TABLE = "flask_migrate_sidecar_lock"


def leave_out_own(include_name: Callable[..., bool] | None) -> Callable[..., bool]:
    """Make autogenerate blind to the lease table, which it would propose to drop.

    So it would the version table of another `Migrate` that shares the database.

    Args:
        include_name: what the application gives Alembic; it decides about all other names.
    """
    own = {LEASE_TABLE, *list_version_tables()}

    def include(name: str | None, type_: str, parents: Any) -> bool:
        if type_ == "table" and name in own:
            return False
        return include_name is None or include_name(name, type_, parents)

    return include


def _list_visible(context: MigrationContext, connection: Connection) -> set[str]:
    """List the tables that the application's `include_name` and `include_object` let through."""
    from alembic.autogenerate.api import AutogenContext

    filters = AutogenContext(context, autogenerate=True)
    names = [
        name
        for name in inspect(connection).get_table_names()
        if filters.run_name_filters(name, "table", {"schema_name": None})
    ]
    if not context.opts.get("include_object"):
        return {*names}
    tables = [Table(name, MetaData(), autoload_with=connection) for name in names]
    chosen = functools.partial(
        filters.run_object_filters, type_="table", reflected=True, compare_to=None
    )
    return {table.name for table in tables if chosen(table, table.name)}


def warn_without_models(context: MigrationContext, metadata: Any) -> None:
    """Warn where models and a database are about to be compared, but there are no models."""
    several = metadata if isinstance(metadata, (list, tuple)) else [metadata]
    # Without any metadata Alembic itself refuses.
    if context.connection is None or any(one is None or one.tables for one in several):
        return
    tables = _list_visible(context, context.connection) - {context.version_table}
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
