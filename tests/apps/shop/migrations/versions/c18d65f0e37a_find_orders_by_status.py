"""find orders by status

Revision ID: c18d65f0e37a
Revises: 9af30d4172be
Create Date: 2025-01-16 09:33:47.715820

"""
import sqlalchemy as sa
from alembic import op

revision = "c18d65f0e37a"
down_revision = "9af30d4172be"
branch_labels = None
depends_on = None


def upgrade():
    with op.batch_alter_table("orders", schema=None) as batch_op:
        batch_op.create_index("ix_orders_status_placed_at", ["status", "placed_at"], unique=False)


def downgrade():
    with op.batch_alter_table("orders", schema=None) as batch_op:
        batch_op.drop_index("ix_orders_status_placed_at")
