"""customer phone and newsletter

Revision ID: 1e6b4f8ad207
Revises: 5be8820f7c16
Create Date: 2023-06-05 11:52:27.649038

"""
import sqlalchemy as sa
from alembic import op

revision = "1e6b4f8ad207"
down_revision = "5be8820f7c16"
branch_labels = None
depends_on = None


def upgrade():
    with op.batch_alter_table("customer", schema=None) as batch_op:
        batch_op.add_column(sa.Column("phone", sa.String(length=40), nullable=True))
        batch_op.add_column(
            sa.Column("newsletter", sa.Boolean(), server_default=sa.false(), nullable=False)
        )


def downgrade():
    with op.batch_alter_table("customer", schema=None) as batch_op:
        batch_op.drop_column("newsletter")
        batch_op.drop_column("phone")
