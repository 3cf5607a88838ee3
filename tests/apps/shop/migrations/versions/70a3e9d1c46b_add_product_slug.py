"""add product slug

Revision ID: 70a3e9d1c46b
Revises: f2c85d0e9b74
Create Date: 2023-09-12 10:05:31.076213

"""
import sqlalchemy as sa
from alembic import op

revision = "70a3e9d1c46b"
down_revision = "f2c85d0e9b74"
branch_labels = None
depends_on = None


def upgrade():
    with op.batch_alter_table("product", schema=None) as batch_op:
        batch_op.add_column(sa.Column("slug", sa.String(length=220), nullable=True))


def downgrade():
    with op.batch_alter_table("product", schema=None) as batch_op:
        batch_op.drop_column("slug")
