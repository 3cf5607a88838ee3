"""longer posts and password hashes

Revision ID: b35f7d1029ec
Revises: 0c8e64f1b97a
Create Date: 2021-06-24 18:03:20.937614

"""
from alembic import op
import sqlalchemy as sa


# identifiers that Alembic reads
revision = 'b35f7d1029ec'
down_revision = '0c8e64f1b97a'
branch_labels = None
depends_on = None


def upgrade():
    with op.batch_alter_table('post') as batch_op:
        batch_op.alter_column('body',
               existing_type=sa.String(length=140),
               type_=sa.String(length=280),
               existing_nullable=True)
    with op.batch_alter_table('user') as batch_op:
        batch_op.alter_column('password_hash',
               existing_type=sa.String(length=128),
               type_=sa.String(length=256),
               existing_nullable=True)


def downgrade():
    with op.batch_alter_table('user') as batch_op:
        batch_op.alter_column('password_hash',
               existing_type=sa.String(length=256),
               type_=sa.String(length=128),
               existing_nullable=True)
    with op.batch_alter_table('post') as batch_op:
        batch_op.alter_column('body',
               existing_type=sa.String(length=280),
               type_=sa.String(length=140),
               existing_nullable=True)
