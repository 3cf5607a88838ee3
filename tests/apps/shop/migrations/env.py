"""Run the shop's migrations on the engine of the app."""

import logging
from logging.config import fileConfig

from alembic import context
from flask import current_app

config = context.config
# The app has set up its own loggers by now; they must keep working.
fileConfig(config.config_file_name, disable_existing_loggers=False)
logger = logging.getLogger("alembic.env")

extension = current_app.extensions["migrate"]
engine = extension.db.engine
url = engine.url.render_as_string(hide_password=False)
config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
target_metadata = extension.db.metadata


def leave_out_empty(_context, _revision, directives):
    """Write no revision file when the models and the database agree."""
    if getattr(config.cmd_opts, "autogenerate", False) and directives[0].upgrade_ops.is_empty():
        directives[:] = []
        logger.info("No changes in schema detected.")


def run_offline():
    """Print the SQL instead of running it."""
    context.configure(url=url, target_metadata=target_metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


def run_online():
    """Run the SQL, in one transaction where the database allows it."""
    options = dict(extension.configure_args)
    options.setdefault("process_revision_directives", leave_out_empty)
    with engine.connect() as connection:
        context.configure(connection=connection, target_metadata=target_metadata, **options)
        with context.begin_transaction():
            context.run_migrations()


if context.is_offline_mode():
    run_offline()
else:
    run_online()
