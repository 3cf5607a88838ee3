"""hide products and search titles

Revision ID: 5be8820f7c16
Revises: c47e1d90b3a8
Create Date: 2023-04-18 13:30:08.962145

"""
import sqlalchemy as sa
from alembic import op

revision = "5be8820f7c16"
down_revision = "c47e1d90b3a8"
branch_labels = None
depends_on = None


def upgrade():
    with op.batch_alter_table("product", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("active", sa.Boolean(), server_default=sa.true(), nullable=False)
        )
        batch_op.create_index(batch_op.f("ix_product_title"), ["title"], unique=False)


def downgrade():
    with op.batch_alter_table("product", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_product_title"))
        batch_op.drop_column("active")
