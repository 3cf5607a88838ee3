"""Environments (`env.py`) in the shapes that Flask-Migrate 2 to 4 and its users' hands left."""

INI = """
[alembic]

[loggers]
keys = root,sqlalchemy,alembic,flask_migrate

[handlers]
keys = console

[formatters]
keys = generic

[logger_root]
level = WARN
handlers = console
qualname =

[logger_sqlalchemy]
level = WARN
handlers =
qualname = sqlalchemy.engine

[logger_alembic]
level = INFO
handlers =
qualname = alembic

[logger_flask_migrate]
level = INFO
handlers =
qualname = flask_migrate

[handler_console]
class = StreamHandler
args = (sys.stderr,)
level = NOTSET
formatter = generic

[formatter_generic]
format = %(levelname)-5.5s [%(name)s] %(message)s
"""

SCRIPT = '''"""${message}

Revision ID: ${up_revision}
Revises: ${down_revision | comma,n}
"""
from alembic import op
import sqlalchemy as sa
${imports if imports else ""}

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade():
    ${upgrades if upgrades else "pass"}


def downgrade():
    ${downgrades if downgrades else "pass"}
'''

MULTIDB_SCRIPT = '''<%!
import re
%>"""${message}

Revision ID: ${up_revision}
Revises: ${down_revision | comma,n}
"""
from alembic import op
import sqlalchemy as sa
${imports if imports else ""}

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade(engine_name):
    globals()["upgrade_%s" % engine_name]()


def downgrade(engine_name):
    globals()["downgrade_%s" % engine_name]()

<%
    from flask import current_app
    names = [""] + list(current_app.config.get("SQLALCHEMY_BINDS") or {})
%>
% for name in names:

def upgrade_${name}():
    ${context.get("%s_upgrades" % name, "pass")}


def downgrade_${name}():
    ${context.get("%s_downgrades" % name, "pass")}

% endfor
'''

# The first releases: the metadata of the extension, and an engine of its own from the settings.
EXTENSION_METADATA = """
from logging.config import fileConfig

from alembic import context
from flask import current_app
from sqlalchemy import engine_from_config, pool

config = context.config
fileConfig(config.config_file_name)
config.set_main_option("sqlalchemy.url", current_app.config["SQLALCHEMY_DATABASE_URI"])
target_metadata = current_app.extensions["migrate"].metadata


def offline():
    context.configure(url=config.get_main_option("sqlalchemy.url"))
    with context.begin_transaction():
        context.run_migrations()


def online():
    engine = engine_from_config(
        config.get_section(config.config_ini_section),
        prefix="sqlalchemy.",
        poolclass=pool.NullPool,
    )
    connection = engine.connect()
    context.configure(connection=connection, target_metadata=target_metadata)
    try:
        with context.begin_transaction():
            context.run_migrations()
    finally:
        connection.close()


offline() if context.is_offline_mode() else online()
"""

_START = """
import logging
from logging.config import fileConfig

from alembic import context
from flask import current_app

config = context.config
fileConfig(config.config_file_name)
logger = logging.getLogger("{logger}")
state = current_app.extensions["migrate"]


def drop_empty(_context, _revision, directives):
    if getattr(config.cmd_opts, "autogenerate", False):
        script = directives[0]
        if script.upgrade_ops.is_empty():
            directives[:] = []
            logger.info("No changes in schema detected.")
"""

_END = """
offline() if context.is_offline_mode() else online()
"""

# Flask-Migrate 2: `current_app.extensions["migrate"].db.metadata` and `engine_from_config`.
VERSION_2 = (
    _START.format(logger="alembic.env")
    + """
from sqlalchemy import engine_from_config, pool

config.set_main_option(
    "sqlalchemy.url", current_app.config["SQLALCHEMY_DATABASE_URI"].replace("%", "%%")
)
target_metadata = state.db.metadata


def offline():
    url = config.get_main_option("sqlalchemy.url")
    context.configure(url=url, target_metadata=target_metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


def online():
    connectable = engine_from_config(
        config.get_section(config.config_ini_section),
        prefix="sqlalchemy.",
        poolclass=pool.NullPool,
    )
    with connectable.connect() as connection:
        context.configure(
            connection=connection,
            target_metadata=target_metadata,
            process_revision_directives=drop_empty,
            **state.configure_args
        )
        with context.begin_transaction():
            context.run_migrations()
"""
    + _END
)

# Flask-Migrate 3: the engine of the extension's database object.
VERSION_3 = (
    _START.format(logger="alembic.env")
    + """
config.set_main_option(
    "sqlalchemy.url", str(state.db.get_engine().url).replace("%", "%%")
)
target_metadata = state.db.metadata


def offline():
    url = config.get_main_option("sqlalchemy.url")
    context.configure(url=url, target_metadata=target_metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


def online():
    with state.db.get_engine().connect() as connection:
        context.configure(
            connection=connection,
            target_metadata=target_metadata,
            process_revision_directives=drop_empty,
            **state.configure_args
        )
        with context.begin_transaction():
            context.run_migrations()
"""
    + _END
)

# Flask-Migrate 4: engine by trial, and a value put into the shared `configure_args`.
VERSION_4 = (
    _START.format(logger="alembic.env")
    + """

def get_engine():
    try:
        return state.db.get_engine()
    except (TypeError, AttributeError):
        return state.db.engine


config.set_main_option(
    "sqlalchemy.url",
    get_engine().url.render_as_string(hide_password=False).replace("%", "%%"),
)


def get_metadata():
    if hasattr(state.db, "metadatas"):
        return state.db.metadatas[None]
    return state.db.metadata


def offline():
    url = config.get_main_option("sqlalchemy.url")
    context.configure(url=url, target_metadata=get_metadata(), literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


def online():
    arguments = state.configure_args
    if arguments.get("process_revision_directives") is None:
        arguments["process_revision_directives"] = drop_empty
    with get_engine().connect() as connection:
        context.configure(connection=connection, target_metadata=get_metadata(), **arguments)
        with context.begin_transaction():
            context.run_migrations()
"""
    + _END
)

_MULTIDB_RUN = """
def drop_empty_all(_context, _revision, directives):
    if getattr(config.cmd_opts, "autogenerate", False):
        lists = directives[0].upgrade_ops_list
        if len(lists) >= len(binds) + 1 and all(ops.is_empty() for ops in lists):
            directives[:] = []
            logger.info("No changes in schema detected.")


def offline():
    urls = {"": config.get_main_option("sqlalchemy.url")}
    for name in binds:
        urls[name] = config.get_section_option(name, "sqlalchemy.url")
    for name, url in urls.items():
        file_ = "%s.sql" % name
        logger.info("Writing output to %s", file_)
        with open(file_, "w") as buffer:
            context.configure(
                url=url,
                output_buffer=buffer,
                target_metadata=get_metadata(name),
                literal_binds=True,
            )
            with context.begin_transaction():
                context.run_migrations(engine_name=name)


def online():
    engines = {name: {"engine": get_engine(name)} for name in ["", *binds]}
    for rec in engines.values():
        rec["connection"] = rec["engine"].connect()
        rec["transaction"] = rec["connection"].begin()
    try:
        for name, rec in engines.items():
            logger.info("Migrating database %s", name or "<default>")
            context.configure(
                connection=rec["connection"],
                upgrade_token="%s_upgrades" % name,
                downgrade_token="%s_downgrades" % name,
                target_metadata=get_metadata(name),
                process_revision_directives=drop_empty_all,
                **state.configure_args
            )
            context.run_migrations(engine_name=name)
        for rec in engines.values():
            rec["transaction"].commit()
    except:
        for rec in engines.values():
            rec["transaction"].rollback()
        raise
    finally:
        for rec in engines.values():
            rec["connection"].close()
"""

# Flask-Migrate 2, several databases: bound tables picked from one metadata, engines of its own.
MULTIDB_2 = (
    _START.format(logger="alembic.env")
    + """
from sqlalchemy import MetaData, engine_from_config, pool

config.set_main_option("sqlalchemy.url", current_app.config["SQLALCHEMY_DATABASE_URI"])
binds = []
for name, settings in current_app.config.get("SQLALCHEMY_BINDS").items():
    url = settings["url"] if isinstance(settings, dict) else settings
    context.config.set_section_option(name, "sqlalchemy.url", url)
    binds.append(name)


def get_engine(name):
    section = config.get_section(name or config.config_ini_section)
    return engine_from_config(section, prefix="sqlalchemy.", poolclass=pool.NullPool)


def get_metadata(bind):
    if not hasattr(state.db, "metadatas"):
        m = MetaData()
        for t in state.db.metadata.tables.values():
            if t.info.get("bind_key") == (bind or None):
                t.tometadata(m)
        return m
    return state.db.metadatas.get(bind or None, MetaData())

"""
    + _MULTIDB_RUN
    + _END
)

# Flask-Migrate 3 and 4, several databases: engines of the extension's database object.
MULTIDB_4 = (
    _START.format(logger="alembic.env")
    + """
from sqlalchemy import MetaData


def get_engine(bind_key=None):
    try:
        return state.db.get_engine(bind_key or None)
    except (TypeError, AttributeError):
        return state.db.engines.get(bind_key or None)


def get_url(name=None):
    return get_engine(name).url.render_as_string(hide_password=False).replace("%", "%%")


config.set_main_option("sqlalchemy.url", get_url())
binds = []
if current_app.config.get("SQLALCHEMY_BINDS") is not None:
    binds = list(current_app.config["SQLALCHEMY_BINDS"].keys())
else:
    get_bind_names = getattr(state.db, "bind_names", None)
    if get_bind_names:
        binds = get_bind_names()
for name in binds:
    context.config.set_section_option(name, "sqlalchemy.url", get_url(name))


def get_metadata(bind):
    if not bind:
        bind = None
    if hasattr(state.db, "metadatas"):
        return state.db.metadatas.get(bind, MetaData())
    return state.db.metadata

"""
    + _MULTIDB_RUN
    + _END
)
