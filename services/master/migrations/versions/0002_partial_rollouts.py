"""Partial rollouts: batches of groups that ended in any iteration, and samples that go on in a later one"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("versions", schema=None) as batch_op:
        batch_op.add_column(sa.Column("closed", sa.Boolean(), nullable=False, server_default=sa.false()))
    with op.batch_alter_table("groups", schema=None) as batch_op:
        batch_op.add_column(sa.Column("batch", sa.BigInteger(), nullable=True))
        batch_op.create_index(batch_op.f("ix_groups_run_id_batch"), ["run_id", "batch"], unique=False)
    with op.batch_alter_table("samples", schema=None) as batch_op:
        batch_op.add_column(sa.Column("round", sa.BigInteger(), nullable=False, server_default="0"))
        batch_op.add_column(sa.Column("ending", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("partial", sa.LargeBinary(), nullable=True))
        batch_op.create_index(batch_op.f("ix_samples_run_id_state"), ["run_id", "state"], unique=False)
    # Until now an iteration's groups were its batch, and every version but the newest had been trained on.
    op.execute("UPDATE groups SET batch = iteration WHERE mode = ''")
    op.execute(
        "UPDATE versions SET closed = true WHERE EXISTS (SELECT 1 FROM versions AS later "
        "WHERE later.run_id = versions.run_id AND later.number > versions.number)"
    )
    op.execute(
        "UPDATE groups SET batch = NULL WHERE EXISTS (SELECT 1 FROM versions "
        "WHERE versions.run_id = groups.run_id AND versions.number = groups.iteration AND NOT versions.closed)"
    )


def downgrade() -> None:
    with op.batch_alter_table("samples", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_samples_run_id_state"))
        batch_op.drop_column("partial")
        batch_op.drop_column("ending")
        batch_op.drop_column("round")
    with op.batch_alter_table("groups", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_groups_run_id_batch"))
        batch_op.drop_column("batch")
    with op.batch_alter_table("versions", schema=None) as batch_op:
        batch_op.drop_column("closed")
