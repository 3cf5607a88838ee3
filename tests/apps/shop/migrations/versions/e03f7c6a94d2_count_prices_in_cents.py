"""count prices in cents

Revision ID: e03f7c6a94d2
Revises: b8d51f2e063c
Create Date: 2024-01-23 17:11:40.820159

"""
import sqlalchemy as sa
from alembic import op

revision = "e03f7c6a94d2"
down_revision = "b8d51f2e063c"
branch_labels = None
depends_on = None


product = sa.table(
    "product", sa.column("price", sa.Numeric), sa.column("price_cents", sa.Integer)
)


def upgrade():
    with op.batch_alter_table("product", schema=None) as batch_op:
        batch_op.add_column(sa.Column("price_cents", sa.Integer(), nullable=True))
        batch_op.add_column(
            sa.Column("currency", sa.String(length=3), server_default="EUR", nullable=False)
        )
    # SQLite multiplies in floating point: without rounding, 19.99 would lose a cent.
    cents = sa.func.round(product.c.price * sa.literal_column("100"))
    op.execute(product.update().values(price_cents=sa.cast(cents, sa.Integer)))
    with op.batch_alter_table("product", schema=None) as batch_op:
        batch_op.alter_column("price_cents", existing_type=sa.Integer(), nullable=False)
        batch_op.drop_column("price")


def downgrade():
    with op.batch_alter_table("product", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("price", sa.Numeric(precision=10, scale=2), nullable=True)
        )
    op.execute(product.update().values(price=product.c.price_cents / sa.literal_column("100.0")))
    with op.batch_alter_table("product", schema=None) as batch_op:
        batch_op.alter_column(
            "price", existing_type=sa.Numeric(precision=10, scale=2), nullable=False
        )
        batch_op.drop_column("currency")
        batch_op.drop_column("price_cents")
