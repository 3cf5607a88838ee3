"""pin notes and name accounts

Revision ID: 07d8a53fc6b1
Revises: b2e94d6810fc
Create Date: 2024-05-14 16:31:27.095483

"""
import sqlalchemy as sa
from alembic import op

revision = "07d8a53fc6b1"
down_revision = "b2e94d6810fc"
branch_labels = None
depends_on = None


def upgrade(engine_name):
    globals().get(f"upgrade_{engine_name}", nothing)()


def downgrade(engine_name):
    globals().get(f"downgrade_{engine_name}", nothing)()


def nothing():
    """Leave a database alone that was added after this revision."""


def upgrade_():
    with op.batch_alter_table("note", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("pinned", sa.Boolean(), server_default=sa.false(), nullable=False)
        )


def downgrade_():
    with op.batch_alter_table("note", schema=None) as batch_op:
        batch_op.drop_column("pinned")


def upgrade_users():
    with op.batch_alter_table("account", schema=None) as batch_op:
        batch_op.add_column(sa.Column("display_name", sa.String(length=120), nullable=True))


def downgrade_users():
    with op.batch_alter_table("account", schema=None) as batch_op:
        batch_op.drop_column("display_name")


def upgrade_audit():
    pass


def downgrade_audit():
    pass
