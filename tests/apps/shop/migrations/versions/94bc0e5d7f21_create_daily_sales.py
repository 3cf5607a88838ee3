"""create daily sales

Revision ID: 94bc0e5d7f21
Revises:
Create Date: 2024-03-11 09:27:16.193847

"""
import sqlalchemy as sa
from alembic import op

revision = "94bc0e5d7f21"
down_revision = None
branch_labels = ("reporting",)
depends_on = "c47e1d90b3a8"


def upgrade():
    op.create_table(
        "daily_sales",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("orders", sa.Integer(), nullable=False),
        sa.Column("revenue_cents", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("day", name=op.f("pk_daily_sales")),
    )


def downgrade():
    op.drop_table("daily_sales")
