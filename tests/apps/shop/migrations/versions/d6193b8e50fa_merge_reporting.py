"""merge reporting into the shop

Revision ID: d6193b8e50fa
Revises: e03f7c6a94d2, 2d7fa1869c0e
Create Date: 2024-04-15 08:58:22.641905

"""

revision = "d6193b8e50fa"
down_revision = ("e03f7c6a94d2", "2d7fa1869c0e")
branch_labels = None
depends_on = None


def upgrade():
    pass


def downgrade():
    pass
