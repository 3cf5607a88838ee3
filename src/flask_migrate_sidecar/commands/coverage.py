"""What a run covers: the databases that the repository's `env.py` comes to, each for itself."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Any, Final

from flask_migrate_sidecar.application.migrations_only import MIGRATIONS_ONLY
from flask_migrate_sidecar.application.subcommand import Subcommand
from flask_migrate_sidecar.database.connect import Database
from flask_migrate_sidecar.database.dialect import find_dialect
from flask_migrate_sidecar.database.url import place
from flask_migrate_sidecar.errors import ConfigurationError, SidecarError
from flask_migrate_sidecar.history.environment import Readings
from flask_migrate_sidecar.history.failure import explained
from flask_migrate_sidecar.history.reading import Patience, read_databases
from flask_migrate_sidecar.history.repository import Repository
from flask_migrate_sidecar.history.revisions import open_history
from flask_migrate_sidecar.log.logger import get_logger
from flask_migrate_sidecar.settings.options import normalise_bind

from .session import Session

logger: Final = get_logger(__name__)


def require_managed(session: Session, found: Collection[str], binds: Sequence[str] = ()) -> None:
    """Want what was asked for by name to be a database that the repository's `env.py` comes to.

    Args:
        session: what the commands share.
        found: the databases that `env.py` came to.
        binds: the databases that `--bind` names; none means all.

    Raises:
        ConfigurationError: `--bind` names one that it does not come to, or a URL was given for it.
    """
    redirected = session.settings.bind_urls()
    for database in session.databases:
        name = database.name
        is_wanted = name in binds if binds else normalise_bind(name) in redirected
        if is_wanted and name not in found:
            raise ConfigurationError(
                f"the repository does not migrate the database {name!r}: its env.py does not come "
                "to it",
                hint="leave the bind out, or use a repository for several databases: "
                "'db init --multidb' makes one",
                database=name,
            )


def require_version_table(session: Session, found: Readings) -> None:
    """Want an empty database to be empty: without its application, nothing says where it looks.

    Raises:
        ConfigurationError: the revisions may be in a table of another name.
        SidecarError: the database could not be asked.
    """
    settings = session.settings
    if session.application.source != MIGRATIONS_ONLY or settings.version_table is not None:
        return
    known = {name for p in found for name in (p.table, f"{p.schema}.{p.table}")}
    empty = {here.database: here for here, revisions in found.items() if not revisions}
    for database in session.lasting:
        here = empty.get(database.name)
        if here is None:
            continue
        dialect = find_dialect(database.url.get_backend_name())
        engine = database.engine(connect_timeout=settings.connect_timeout)
        with explained(), engine.connect() as connection:
            others = [n for n in dialect.find_version_tables(connection) if n not in known]
        if others:
            raise ConfigurationError(
                f"the database {here.database} has no revision in {here.table}, but a table of "
                f"that form called {', '.join(others)}",
                hint=f"--version-table {others[0]}, if the application says Migrate(..., "
                f"version_table={others[0].rpartition('.')[2]!r}); --version-table {here.table}, "
                "if it is somebody else's",
                database=here.database,
                tables=others,
            )


def list_managed(databases: Sequence[Database], found: Readings | None) -> Sequence[Database]:
    """List the databases that are to be locked: `env.py` does not come to the others.

    Args:
        databases: those that the command is about.
        found: the version tables that `env.py` came to; where it came to none, or could not be
            read, it may come to any of them.
    """
    names = {here.database for here in found or ()}
    return [database for database in databases if database.name in names] or databases


def warn_of_unmanaged(databases: Sequence[Database], found: Readings) -> None:
    """Say once that a database is none of the repository's, or that there is nothing in any.

    Args:
        databases: those that the command is about.
        found: the version tables that `env.py` came to.
    """
    managed = {here.database for here in found}
    names = [database.name for database in databases if database.name not in managed]
    if names:
        logger.warning(
            "database.unmanaged",
            databases=names,
            hint="the repository's env.py does not come to them: nothing is migrated there"
            if managed
            else "env.py has come to no version table: are there no tenants yet?",
        )


def require_distinct(session: Session, databases: Sequence[str]) -> None:
    """Want each database that is migrated to have a version table of its own.

    The second would find what the first has done and make no table; where `env.py` has a
    transaction open in both, it waits for the first for ever.

    Raises:
        ConfigurationError: some of those under one lock have not.
    """
    places = [here for here in session.environments.places if here.database in databases]
    tables = {here._replace(database="") for here in places}
    migrated = [name for name in databases if name in {here.database for here in places}]
    if len(migrated) > 1 and len(tables) < len(places):
        raise _are_one(migrated)


def require_no_twin(session: Session, subcommand: Subcommand, repository: Repository) -> None:
    """Want what `--bind` names not to share its version table with what it leaves out.

    Raises:
        ConfigurationError: the second of the two would find what the first has done.
    """
    binds = subcommand.binds
    named = {_locate(database) for database in session.lasting if database.name in binds}
    twins = [d.name for d in session.lasting if d.name not in binds and _locate(d) in named]
    if not twins:
        return
    repository.config.cmd_opts.bind = [*binds, *twins]
    found: Readings = {}
    # What was not asked for need not be there, nor let us in.
    with suppress(SidecarError), explained(repository.folder):
        script = open_history(repository.config)
        found = read_databases(
            session.application, session.environments, repository.config, script, Patience()
        )
    repository.config.cmd_opts.bind = binds
    tables: dict[Any, str] = {}
    locations = {database.name: _locate(database) for database in session.databases}
    for here in found:
        table = locations.get(here.database), here._replace(database="")
        names = [tables.setdefault(table, here.database), here.database]
        if len({subcommand.selects(name) for name in names}) > 1:
            raise _are_one(names)


def _locate(database: Database) -> tuple[str | None, ...]:
    url = database.url
    backend = url.get_backend_name()
    return backend, place(url), None if backend == "sqlite" else url.database


def _are_one(names: Sequence[str]) -> ConfigurationError:
    return ConfigurationError(
        f"the databases {' and '.join(names)} are one, and have one version table",
        hint="give each a database of its own, or keep their tables under one of the names",
        databases=names,
    )


def read_selected(
    session: Session,
    subcommand: Subcommand,
    repository: Repository,
    script: Any,
    patience: Patience | None = None,
    **options: Any,
) -> Readings:
    """Read the databases that the subcommand is about, by default with the run's patience.

    Raises:
        ConfigurationError: one that was named is none of the repository's.
    """
    found = read_databases(
        session.application,
        session.environments,
        repository.config,
        script,
        patience or session.patience,
        **options,
    )
    require_managed(session, {here.database for here in found}, subcommand.binds)
    require_version_table(session, found)
    return {here: held for here, held in found.items() if subcommand.selects(here.database)}
