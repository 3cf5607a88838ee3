"""create product table

Revision ID: 8d02b6f5a913
Revises: 3f1c9a27e4b0
Create Date: 2023-02-20 16:02:55.730911

"""
import sqlalchemy as sa
from alembic import op

revision = "8d02b6f5a913"
down_revision = "3f1c9a27e4b0"
branch_labels = None
depends_on = None


def upgrade():
    op.create_table(
        "product",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sku", sa.String(length=32), nullable=False),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("price", sa.Numeric(precision=10, scale=2), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_product")),
        sa.UniqueConstraint("sku", name=op.f("uq_product_sku")),
    )


def downgrade():
    op.drop_table("product")
