"""create discount table

Revision ID: 6b92f4ec08d1
Revises: c18d65f0e37a
Create Date: 2025-05-20 11:18:06.442539

"""
import sqlalchemy as sa
from alembic import op

revision = "6b92f4ec08d1"
down_revision = "c18d65f0e37a"
branch_labels = None
depends_on = None


def upgrade():
    op.create_table(
        "discount",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("code", sa.String(length=20), nullable=False),
        sa.Column("percent", sa.Integer(), nullable=False),
        sa.Column("expires_on", sa.Date(), nullable=True),
        sa.CheckConstraint("percent BETWEEN 1 AND 90", name=op.f("ck_discount_percent_range")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_discount")),
        sa.UniqueConstraint("code", name=op.f("uq_discount_code")),
    )


def downgrade():
    op.drop_table("discount")
