"""merge categories and newsletter

Revision ID: f2c85d0e9b74
Revises: a90d37c25e1f, 1e6b4f8ad207
Create Date: 2023-06-07 15:20:03.514790

"""

revision = "f2c85d0e9b74"
down_revision = ("a90d37c25e1f", "1e6b4f8ad207")
branch_labels = None
depends_on = None


def upgrade():
    pass


def downgrade():
    pass
