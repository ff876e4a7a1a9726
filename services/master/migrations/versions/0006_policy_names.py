"""The name of the policy that a version is of"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("versions", schema=None) as batch_op:
        batch_op.add_column(sa.Column("policy", sa.String(), nullable=False, server_default="policy"))
        batch_op.drop_constraint("pk_versions", type_="primary")
        batch_op.create_primary_key("pk_versions", ["run_id", "policy", "number"])


def downgrade() -> None:
    with op.batch_alter_table("versions", schema=None) as batch_op:
        batch_op.drop_constraint("pk_versions", type_="primary")
        batch_op.create_primary_key("pk_versions", ["run_id", "number"])
        batch_op.drop_column("policy")
