"""count refunds

Revision ID: 2d7fa1869c0e
Revises: 94bc0e5d7f21
Create Date: 2024-04-02 14:39:51.007364

"""
import sqlalchemy as sa
from alembic import op

revision = "2d7fa1869c0e"
down_revision = "94bc0e5d7f21"
branch_labels = None
depends_on = None


def upgrade():
    with op.batch_alter_table("daily_sales", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("refunds_cents", sa.BigInteger(), server_default="0", nullable=False)
        )


def downgrade():
    with op.batch_alter_table("daily_sales", schema=None) as batch_op:
        batch_op.drop_column("refunds_cents")
