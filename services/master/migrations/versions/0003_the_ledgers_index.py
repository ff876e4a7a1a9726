"""The ledger is counted from an index alone: twice a second for every watcher of a run, over all of its samples"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_samples_run_id_purpose_state", "samples", ["run_id", "purpose", "state"])


def downgrade() -> None:
    op.drop_index("ix_samples_run_id_purpose_state", "samples")
