"""Run the migrations of every database of the app, all of them or none."""

import logging
from contextlib import ExitStack
from logging.config import fileConfig

from alembic import context
from flask import current_app

config = context.config
# The app has set up its own loggers by now; they must keep working.
fileConfig(config.config_file_name, disable_existing_loggers=False)
logger = logging.getLogger("alembic.env")

extension = current_app.extensions["migrate"]
db = extension.db
# The main database goes by the empty name here, by None in Flask-SQLAlchemy.
names = ["", *(key for key in db.engines if key is not None)]


def url_of(name):
    return db.engines[name or None].url.render_as_string(hide_password=False)


def settings_of(name):
    """Tell Alembic which tables and which part of a revision belong to a database."""
    return {
        "target_metadata": db.metadatas[name or None],
        "upgrade_token": f"{name}_upgrades",
        "downgrade_token": f"{name}_downgrades",
    }


def leave_out_empty(_context, _revision, directives):
    """Write no revision file when the models and all databases agree."""
    if not getattr(config.cmd_opts, "autogenerate", False):
        return
    # Called after each database; only the last call sees what all of them need.
    changes = directives[0].upgrade_ops_list
    if len(changes) == len(names) and all(change.is_empty() for change in changes):
        directives[:] = []
        logger.info("No changes in schema detected.")


def run_offline():
    """Print the SQL of one database after the other."""
    for name in names:
        context.configure(url=url_of(name), literal_binds=True, **settings_of(name))
        context.get_context().impl.static_output(f"-- Database: {name or 'default'}")
        with context.begin_transaction():
            context.run_migrations(engine_name=name)


def run_online():
    """Begin on every database before the first one changes, then commit all or none."""
    options = dict(extension.configure_args)
    options.setdefault("process_revision_directives", leave_out_empty)
    with ExitStack() as stack:
        connections = {}
        for name in names:
            connections[name] = stack.enter_context(db.engines[name or None].connect())
            connections[name].begin()
        # A connection that closes without a commit rolls back: so do all if one of them fails.
        for name, connection in connections.items():
            logger.info("Migrating database %s", name or "default")
            context.configure(connection=connection, **settings_of(name), **options)
            context.run_migrations(engine_name=name)
        for connection in connections.values():
            connection.commit()


config.set_main_option("sqlalchemy.url", url_of("").replace("%", "%%"))
config.set_main_option("databases", ", ".join(filter(None, names)))
if context.is_offline_mode():
    run_offline()
else:
    run_online()
