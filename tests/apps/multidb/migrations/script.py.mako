<%!
import re
%>\
"""${message}

Revision ID: ${up_revision}
Revises: ${down_revision | comma,n}
Create Date: ${create_date}

"""
import re

from alembic import op
import sqlalchemy as sa
${imports if imports else ""}

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade(engine_name=""):
    run(f"upgrade_{engine_name}")


def downgrade(engine_name=""):
    run(f"downgrade_{engine_name}")


def run(name):
    # A database that the application got later has no function here, and nothing to do.
    function = globals().get(re.sub(r"\W", "_", name))
    if function is not None:
        function()

<%
    from flask import current_app

    db = current_app.extensions["migrate"].db
    engines = getattr(db, "async_engines", None) or getattr(db, "engines", None)
    if not engines:
        main = db.get_engine()
        binds = current_app.config.get("SQLALCHEMY_BINDS") or ()
        engines = [None, *(db.bind_names() if hasattr(db, "bind_names") else binds)]
        engines = engines if main is not None else engines[1:]
    names = sorted(name or "" for name in engines)
%>\
% for name in names:

<% function = re.sub(r"\W", "_", name) %>\
def upgrade_${function}():
    ${context.get(f"{name}_upgrades", "pass")}


def downgrade_${function}():
    ${context.get(f"{name}_downgrades", "pass")}

% endfor
