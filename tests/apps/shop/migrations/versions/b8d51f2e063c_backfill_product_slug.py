"""backfill product slug

Revision ID: b8d51f2e063c
Revises: 70a3e9d1c46b
Create Date: 2023-09-12 10:48:59.337482

"""
import sqlalchemy as sa
from alembic import op

revision = "b8d51f2e063c"
down_revision = "70a3e9d1c46b"
branch_labels = None
depends_on = None


product = sa.table(
    "product",
    sa.column("id", sa.Integer),
    sa.column("title", sa.String),
    sa.column("slug", sa.String),
)


def upgrade():
    # Titles repeat; the id keeps the slugs apart.
    words = sa.func.lower(sa.func.replace(product.c.title, " ", "-"), type_=sa.String)
    op.execute(
        product.update()
        .where(product.c.slug.is_(None))
        .values(slug=words + "-" + sa.cast(product.c.id, sa.String(11)))
    )
    with op.batch_alter_table("product", schema=None) as batch_op:
        batch_op.alter_column("slug", existing_type=sa.String(length=220), nullable=False)
        batch_op.create_unique_constraint(batch_op.f("uq_product_slug"), ["slug"])


def downgrade():
    with op.batch_alter_table("product", schema=None) as batch_op:
        batch_op.drop_constraint(batch_op.f("uq_product_slug"), type_="unique")
        batch_op.alter_column("slug", existing_type=sa.String(length=220), nullable=True)
