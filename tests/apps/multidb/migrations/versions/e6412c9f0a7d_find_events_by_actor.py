"""find events by actor

Revision ID: e6412c9f0a7d
Revises: 07d8a53fc6b1
Create Date: 2025-03-04 10:26:58.641120

"""
import sqlalchemy as sa
from alembic import op

revision = "e6412c9f0a7d"
down_revision = "07d8a53fc6b1"
branch_labels = None
depends_on = None


def upgrade(engine_name):
    globals().get(f"upgrade_{engine_name}", nothing)()


def downgrade(engine_name):
    globals().get(f"downgrade_{engine_name}", nothing)()


def nothing():
    """Leave a database alone that was added after this revision."""


def upgrade_():
    pass


def downgrade_():
    pass


def upgrade_users():
    pass


def downgrade_users():
    pass


def upgrade_audit():
    with op.batch_alter_table("event", schema=None) as batch_op:
        batch_op.create_index("ix_event_actor_happened_at", ["actor", "happened_at"], unique=False)


def downgrade_audit():
    with op.batch_alter_table("event", schema=None) as batch_op:
        batch_op.drop_index("ix_event_actor_happened_at")
