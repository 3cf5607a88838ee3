"""Runs the migrations: Alembic executes this file for each command that looks at the database."""

import logging
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


def get_engine():
    """Give the application's engine."""
    if hasattr(migrate.db, "engine"):
        return migrate.db.engine  # Flask-SQLAlchemy 3, Flask-SQLAlchemy-Lite
    return migrate.db.get_engine()  # Flask-SQLAlchemy 2, Alchemical


def get_metadata():
    """Give the models' metadata, with which autogenerate compares the database."""
    if hasattr(migrate.db, "metadatas"):
        return migrate.db.metadatas.get(None, MetaData())
    return getattr(migrate.db, "metadata", None)


def skip_empty_revision(_context, _revision, directives):
    """Write no file where autogenerate found nothing to do."""
    if getattr(config.cmd_opts, "autogenerate", False) and directives[0].upgrade_ops.is_empty():
        directives[:] = []
        logger.info("No changes in schema detected.")


def get_arguments():
    """Give the arguments for `context.configure()`; what was given to `Migrate` wins."""
    arguments = {
        "target_metadata": get_metadata(),
        "process_revision_directives": skip_empty_revision,
    }
    given = {name: value for name, value in migrate.configure_args.items() if value is not None}
    return {**arguments, **given}


def run_offline():
    """Print the SQL of the migrations; nothing connects to the database."""
    url = get_engine().url.render_as_string(hide_password=False)
    context.configure(url=url, literal_binds=True, **get_arguments())
    with context.begin_transaction():
        context.run_migrations()


def run_online():
    """Run the migrations in the database."""
    with get_engine().connect() as connection:
        context.configure(connection=connection, **get_arguments())
        with context.begin_transaction():
            context.run_migrations()


set_up_logging()
if context.is_offline_mode():
    run_offline()
else:
    run_online()
