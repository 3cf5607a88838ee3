"""Runs the migrations of several databases: Alembic executes this file for each command that
looks at them. The main database is called '', each other one by the name of its bind."""

import logging
from contextlib import ExitStack
from logging.config import fileConfig

from alembic import context
from flask import current_app
from sqlalchemy import MetaData

config = context.config
logger = logging.getLogger("flask_migrate")
migrate = current_app.extensions["migrate"]


def set_up_logging():
    """Set up logging for `flask db ...`; a program that calls the functions keeps its own."""
    if not config.attributes.get("configure_logger", True):
        return
    if config.config_file_name is not None:
        fileConfig(config.config_file_name, disable_existing_loggers=False)
    else:
        logging.basicConfig(format="%(levelname)-5.5s [%(name)s] %(message)s")
        for name in ("alembic", "flask_migrate"):
            logging.getLogger(name).setLevel(logging.INFO)
        logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)


def get_engines():
    """Give the application's engines by name, less those that `--bind` leaves out."""
    db = migrate.db
    engines = getattr(db, "engines", None)  # Flask-SQLAlchemy 3, Flask-SQLAlchemy-Lite
    if not engines:  # Flask-SQLAlchemy 2; Alchemical, which has binds once it has an engine
        engines = {None: db.get_engine()}
        binds = current_app.config.get("SQLALCHEMY_BINDS") or ()
        names = db.bind_names() if hasattr(db, "bind_names") else binds
        engines.update({name: db.get_engine(bind=name) for name in names})
    engines = {name or "": engine for name, engine in engines.items() if engine is not None}
    selected = getattr(config.cmd_opts, "bind", None) or [name or "default" for name in engines]
    return {name: engines[name] for name in sorted(engines) if (name or "default") in selected}


def get_metadata(name):
    """Give the metadata of the models that live in one database."""
    db = migrate.db
    if hasattr(db, "metadatas"):
        return db.metadatas.get(name or None, MetaData())
    if not hasattr(db, "metadata"):
        return None
    metadata = MetaData(naming_convention=db.metadata.naming_convention)
    for table in db.metadata.tables.values():
        if table.info.get("bind_key") == (name or None):
            table.to_metadata(metadata)
    return metadata


def skip_empty_revision(_context, _revision, directives):
    """Write no file where autogenerate found nothing to do in any database."""
    if not getattr(config.cmd_opts, "autogenerate", False):
        return
    operations = directives[0].upgrade_ops_list  # of the databases so far
    if len(operations) == len(get_engines()) and all(one.is_empty() for one in operations):
        directives[:] = []
        logger.info("No changes in schema detected.")


def get_arguments(name):
    """Give the arguments for `context.configure()`; what was given to `Migrate` wins."""
    given = {key: value for key, value in migrate.configure_args.items() if value is not None}
    metadata = given.pop("target_metadata", None)
    if isinstance(metadata, dict):
        metadata = metadata.get(name or "default")
    return {
        "target_metadata": get_metadata(name) if metadata is None else metadata,
        "process_revision_directives": skip_empty_revision,
        "upgrade_token": f"{name}_upgrades",
        "downgrade_token": f"{name}_downgrades",
        **given,
    }


def run_offline():
    """Print the SQL of the migrations as one script; nothing connects to a database."""
    for name, engine in get_engines().items():
        url = engine.url.render_as_string(hide_password=False)
        context.configure(url=url, literal_binds=True, **get_arguments(name))
        context.static_output(f"-- Database: {name or 'default'}\n")
        with context.begin_transaction():
            context.run_migrations(engine_name=name)


def run_online():
    """Run the migrations: all databases begin before the first one migrates, and end together."""
    with ExitStack() as stack:
        connections = {
            name: stack.enter_context(engine.connect()) for name, engine in get_engines().items()
        }
        transactions = [connection.begin() for connection in connections.values()]
        try:
            for name, connection in connections.items():
                logger.info("Migrating database %s", name or "default")
                context.configure(connection=connection, **get_arguments(name))
                context.run_migrations(engine_name=name)
        except BaseException:
            for transaction in transactions:
                transaction.rollback()
            raise
        for transaction in transactions:
            transaction.commit()


set_up_logging()
if context.is_offline_mode():
    run_offline()
else:
    run_online()
