"""sort products into categories

Revision ID: a90d37c25e1f
Revises: 5be8820f7c16
Create Date: 2023-06-01 08:15:49.281660

"""
import sqlalchemy as sa
from alembic import op

revision = "a90d37c25e1f"
down_revision = "5be8820f7c16"
branch_labels = None
depends_on = None


def upgrade():
    op.create_table(
        "category",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_category")),
        sa.UniqueConstraint("name", name=op.f("uq_category_name")),
    )
    with op.batch_alter_table("product", schema=None) as batch_op:
        batch_op.add_column(sa.Column("category_id", sa.Integer(), nullable=True))
        batch_op.create_index(batch_op.f("ix_product_category_id"), ["category_id"], unique=False)
        batch_op.create_foreign_key(
            batch_op.f("fk_product_category_id_category"), "category", ["category_id"], ["id"]
        )


def downgrade():
    with op.batch_alter_table("product", schema=None) as batch_op:
        # In this order, for MariaDB keeps an index as long as a foreign key needs it.
        batch_op.drop_constraint(
            batch_op.f("fk_product_category_id_category"), type_="foreignkey"
        )
        batch_op.drop_index(batch_op.f("ix_product_category_id"))
        batch_op.drop_column("category_id")
    op.drop_table("category")
