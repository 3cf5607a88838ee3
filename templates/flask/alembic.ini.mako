# Configuration of this migration repository. Where the database is, the application knows.

[alembic]
# Names of new files; %%(year)d, %%(month).2d, %%(day).2d and others may stand here too.
# file_template = %%(rev)s_%%(slug)s

# How a list of folders (version_locations, prepend_sys_path) is divided.
path_separator = os

# Run env.py for the command 'revision' without --autogenerate too.
# revision_environment = false

# Programs that new revision files pass through, for example a formatter.
# [post_write_hooks]
# hooks = ruff
# ruff.type = exec
# ruff.executable = ruff
# ruff.options = format REVISION_SCRIPT_FILENAME

# Logging of 'flask db ...'; a program that calls flask_migrate's functions keeps its own.
[loggers]
keys = root,sqlalchemy,alembic,alembic_plugins,flask_migrate

[handlers]
keys = console

[formatters]
keys = generic

[logger_root]
level = WARNING
handlers = console

[logger_sqlalchemy]
level = WARNING
handlers =
qualname = sqlalchemy.engine

[logger_alembic]
level = INFO
handlers =
qualname = alembic

[logger_alembic_plugins]
level = WARNING
handlers =
qualname = alembic.runtime.plugins

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
datefmt = %H:%M:%S
