"""create warehouse and stock

Revision ID: 46e7b0a5c2d9
Revises: d6193b8e50fa
Create Date: 2024-07-29 12:06:14.558021

"""
import sqlalchemy as sa
from alembic import op

revision = "46e7b0a5c2d9"
down_revision = "d6193b8e50fa"
branch_labels = None
depends_on = None


def upgrade():
    op.create_table(
        "warehouse",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("code", sa.String(length=8), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_warehouse")),
        sa.UniqueConstraint("code", name=op.f("uq_warehouse_code")),
    )
    op.create_table(
        "stock",
        sa.Column("warehouse_id", sa.Integer(), nullable=False),
        sa.Column("product_id", sa.Integer(), nullable=False),
        sa.Column("amount", sa.Integer(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(
            ["product_id"], ["product.id"], name=op.f("fk_stock_product_id_product")
        ),
        sa.ForeignKeyConstraint(
            ["warehouse_id"], ["warehouse.id"], name=op.f("fk_stock_warehouse_id_warehouse")
        ),
        sa.PrimaryKeyConstraint("warehouse_id", "product_id", name=op.f("pk_stock")),
    )


def downgrade():
    op.drop_table("stock")
    op.drop_table("warehouse")
