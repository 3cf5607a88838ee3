"""create customer table

Revision ID: 3f1c9a27e4b0
Revises:
Create Date: 2023-02-14 10:21:37.118204

"""
import sqlalchemy as sa
from alembic import op

revision = "3f1c9a27e4b0"
down_revision = None
branch_labels = None
depends_on = None


def upgrade():
    op.create_table(
        "customer",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("email", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=120), nullable=False),
        sa.Column("created_at", sa.DateTime(), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_customer")),
        sa.UniqueConstraint("email", name=op.f("uq_customer_email")),
    )


def downgrade():
    op.drop_table("customer")
