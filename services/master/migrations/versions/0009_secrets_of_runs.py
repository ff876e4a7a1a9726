"""Secrets of runs, with which their tasks are sealed"""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("runs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("secret", sa.LargeBinary(), nullable=True))
    runs = sa.table("runs", sa.column("id", sa.String()), sa.column("secret", sa.LargeBinary()))
    database = op.get_bind()
    for (run_id,) in database.execute(sa.select(runs.c.id)).all():
        database.execute(sa.update(runs).where(runs.c.id == run_id).values(secret=secrets.token_bytes(32)))


def downgrade() -> None:
    with op.batch_alter_table("runs", schema=None) as batch_op:
        batch_op.drop_column("secret")
