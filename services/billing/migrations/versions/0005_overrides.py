"""Tiers by agreement, with terms and an end."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "override",
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("tier", sa.Text(), nullable=False),
        sa.Column("terms", sa.Text(), nullable=False),
        sa.Column("end_time", sa.DateTime(timezone=True)),
        sa.Column("actor_kind", sa.Text(), nullable=False),
        sa.Column("actor_id", sa.Text(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name="fk_override_account_id"),
        sa.PrimaryKeyConstraint("account_id", name="pk_override"),
    )
    op.create_index("ix_override_end_time", "override", ["end_time"])


def downgrade() -> None:
    op.drop_table("override")
