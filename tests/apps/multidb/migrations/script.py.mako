<%
    from flask import current_app

    names = ["", *(key for key in current_app.extensions["migrate"].db.engines if key is not None)]
%>"""${message}

Revision ID: ${up_revision}
Revises: ${down_revision | comma,n}
Create Date: ${create_date}

"""
import sqlalchemy as sa
from alembic import op
${imports if imports else ""}

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade(engine_name):
    globals().get(f"upgrade_{engine_name}", nothing)()


def downgrade(engine_name):
    globals().get(f"downgrade_{engine_name}", nothing)()


def nothing():
    """Leave a database alone that was added after this revision."""
% for name in names:


def upgrade_${name}():
    ${context.get(f"{name}_upgrades", "pass") or "pass"}


def downgrade_${name}():
    ${context.get(f"{name}_downgrades", "pass") or "pass"}
% endfor
