"""create notes and accounts

Revision ID: 5c1f7e20a9d4
Revises:
Create Date: 2023-08-03 14:12:09.347715

"""
import sqlalchemy as sa
from alembic import op

revision = "5c1f7e20a9d4"
down_revision = None
branch_labels = None
depends_on = None


def upgrade(engine_name):
    globals().get(f"upgrade_{engine_name}", nothing)()


def downgrade(engine_name):
    globals().get(f"downgrade_{engine_name}", nothing)()


def nothing():
    """Leave a database alone that was added after this revision."""


def upgrade_():
    op.create_table(
        "note",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("author", sa.String(length=80), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_note")),
    )


def downgrade_():
    op.drop_table("note")


def upgrade_users():
    op.create_table(
        "account",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("login", sa.String(length=80), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_account")),
        sa.UniqueConstraint("login", name=op.f("uq_account_login")),
    )


def downgrade_users():
    op.drop_table("account")
