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
    binds = [name for name in getattr(db, "engines", None) or () if name]
    binds += [name for name in current_app.config.get("SQLALCHEMY_BINDS") or () if name]
    if hasattr(db, "bind_names"):
        binds += db.bind_names()
    names = ["", *dict.fromkeys(binds)]
%>\
% for name in names:

<% function = re.sub(r"\W", "_", name) %>\
def upgrade_${function}():
    ${context.get(f"{name}_upgrades", "pass")}


def downgrade_${function}():
    ${context.get(f"{name}_downgrades", "pass")}

% endfor
