"""create order tables

Revision ID: c47e1d90b3a8
Revises: 8d02b6f5a913
Create Date: 2023-03-06 09:44:12.405377

"""
import sqlalchemy as sa
from alembic import op

revision = "c47e1d90b3a8"
down_revision = "8d02b6f5a913"
branch_labels = None
depends_on = None


def upgrade():
    op.create_table(
        "orders",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("customer_id", sa.Integer(), nullable=False),
        sa.Column(
            "status",
            sa.Enum("pending", "paid", "shipped", "cancelled", name="order_status"),
            server_default="pending",
            nullable=False,
        ),
        sa.Column("placed_at", sa.DateTime(), server_default=sa.func.now(), nullable=False),
        sa.ForeignKeyConstraint(
            ["customer_id"], ["customer.id"], name=op.f("fk_orders_customer_id_customer")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_orders")),
    )
    op.create_table(
        "order_line",
        sa.Column("order_id", sa.Integer(), nullable=False),
        sa.Column("product_id", sa.Integer(), nullable=False),
        sa.Column("quantity", sa.Integer(), server_default="1", nullable=False),
        sa.ForeignKeyConstraint(
            ["order_id"],
            ["orders.id"],
            name=op.f("fk_order_line_order_id_orders"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["product_id"], ["product.id"], name=op.f("fk_order_line_product_id_product")
        ),
        sa.PrimaryKeyConstraint("order_id", "product_id", name=op.f("pk_order_line")),
    )


def downgrade():
    op.drop_table("order_line")
    op.drop_table("orders")
    # PostgreSQL keeps the enum as a type of its own, which outlives the table.
    if op.get_context().dialect.name == "postgresql":
        op.execute("DROP TYPE order_status")
