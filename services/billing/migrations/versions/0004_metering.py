"""Totals of use that is sold by the unit, the inbox of quota's events, and what else a checkout sells."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "inbox",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("receive_time", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_inbox"),
    )
    op.create_index("ix_inbox_receive_time", "inbox", ["receive_time"])
    op.create_table(
        "usage_total",
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("meter", sa.Text(), nullable=False),
        sa.Column("period_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("period_end", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=False),
        sa.Column("record_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("final", sa.Boolean(), nullable=False),
        sa.Column("sent", sa.BigInteger(), nullable=False),
        sa.Column("sending", sa.BigInteger()),
        sa.Column("sending_stamp", sa.DateTime(timezone=True)),
        sa.Column("reports", sa.BigInteger(), nullable=False),
        sa.Column("late", sa.Boolean(), nullable=False),
        sa.Column("hold_until", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name="fk_usage_total_account_id"),
        sa.PrimaryKeyConstraint("account_id", "meter", "period_start", name="pk_usage_total"),
    )
    op.create_index(
        "ix_usage_total_open",
        "usage_total",
        ["account_id", "meter"],
        postgresql_where=sa.text("used <> sent OR sending IS NOT NULL"),
    )
    op.add_column("checkout", sa.Column("metered_price_ids", sa.Text(), nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("checkout", "metered_price_ids")
    op.drop_table("usage_total")
    op.drop_table("inbox")
