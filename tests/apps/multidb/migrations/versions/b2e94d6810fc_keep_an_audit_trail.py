"""keep an audit trail

Revision ID: b2e94d6810fc
Revises: 5c1f7e20a9d4
Create Date: 2023-11-21 09:50:44.810236

"""
import sqlalchemy as sa
from alembic import op

revision = "b2e94d6810fc"
down_revision = "5c1f7e20a9d4"
branch_labels = None
depends_on = None


def upgrade(engine_name):
    globals().get(f"upgrade_{engine_name}", nothing)()


def downgrade(engine_name):
    globals().get(f"downgrade_{engine_name}", nothing)()


def nothing():
    """Leave a database alone that was added after this revision."""


def upgrade_():
    pass


def downgrade_():
    pass


def upgrade_users():
    pass


def downgrade_users():
    pass


def upgrade_audit():
    op.create_table(
        "event",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("actor", sa.String(length=80), nullable=False),
        sa.Column("action", sa.String(length=120), nullable=False),
        sa.Column("happened_at", sa.DateTime(), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_event")),
    )


def downgrade_audit():
    op.drop_table("event")
