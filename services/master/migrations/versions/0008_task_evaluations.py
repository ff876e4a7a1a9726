"""Evaluations by tasks, and their samples"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "task_evaluations",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("run_id", sa.String(), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=True),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("task", sa.String(), nullable=False),
        sa.Column("metric", sa.String(), nullable=False),
        sa.Column("score", sa.Float(), nullable=False),
        sa.Column("low", sa.Float(), nullable=True),
        sa.Column("high", sa.Float(), nullable=True),
        sa.Column("num_samples", sa.BigInteger(), nullable=False),
        sa.Column("harness", sa.String(), nullable=False),
        sa.Column("harness_version", sa.String(), nullable=False),
        sa.Column("settings", sa.String(), nullable=False),
        sa.Column("time_ns", sa.BigInteger(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_task_evaluations_run_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_task_evaluations")),
    )
    op.create_index(op.f("ix_task_evaluations_run_id"), "task_evaluations", ["run_id"])
    op.create_index(op.f("ix_task_evaluations_time_ns"), "task_evaluations", ["time_ns"])
    op.create_table(
        "task_samples",
        sa.Column("evaluation_id", sa.String(), nullable=False),
        sa.Column("problem", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Float(), nullable=True),
        sa.Column("num_tokens", sa.BigInteger(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["evaluation_id"], ["task_evaluations.id"], name=op.f("fk_task_samples_evaluation_id")),
        sa.PrimaryKeyConstraint("evaluation_id", "problem", "number", name=op.f("pk_task_samples")),
    )


def downgrade() -> None:
    op.drop_table("task_samples")
    op.drop_index(op.f("ix_task_evaluations_time_ns"), table_name="task_evaluations")
    op.drop_index(op.f("ix_task_evaluations_run_id"), table_name="task_evaluations")
    op.drop_table("task_evaluations")
