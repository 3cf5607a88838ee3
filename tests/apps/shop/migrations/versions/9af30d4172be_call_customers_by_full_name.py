"""call customers by full name

Revision ID: 9af30d4172be
Revises: 46e7b0a5c2d9
Create Date: 2024-10-08 16:45:33.290476

"""
import sqlalchemy as sa
from alembic import op

revision = "9af30d4172be"
down_revision = "46e7b0a5c2d9"
branch_labels = None
depends_on = None


def upgrade():
    with op.batch_alter_table("customer", schema=None) as batch_op:
        batch_op.alter_column(
            "name",
            new_column_name="full_name",
            existing_type=sa.String(length=120),
            existing_nullable=False,
        )


def downgrade():
    with op.batch_alter_table("customer", schema=None) as batch_op:
        batch_op.alter_column(
            "full_name",
            new_column_name="name",
            existing_type=sa.String(length=120),
            existing_nullable=False,
        )
