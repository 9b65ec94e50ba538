"""What was told of subscriptions; where accounts came from and went; work that is left to do at Stripe."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_INSTANT = sa.DateTime(timezone=True)
# What lies before is nobody's news.
_TOLD = """
UPDATE subscription SET ended_told = status IN ('canceled', 'incomplete_expired'),
    cancel_time_told = CASE
        WHEN status IN ('trialing', 'active', 'past_due', 'unpaid', 'paused')
            AND (cancel_at_period_end OR cancel_at <= period_end)
        THEN coalesce(cancel_at, period_end) END
"""


def upgrade() -> None:
    for name in ("import_time", "contact_verify_time", "erase_time"):
        op.add_column("account", sa.Column(name, _INSTANT))
    op.create_index("ix_account_email", "account", [sa.text("lower(email)")])
    op.add_column("subscription", sa.Column("cancel_reason", sa.Text(), nullable=False, server_default=""))
    op.add_column("subscription", sa.Column("trial_end_told", _INSTANT))
    op.add_column("subscription", sa.Column("cancel_time_told", _INSTANT))
    op.add_column(
        "subscription", sa.Column("ended_told", sa.Boolean(), nullable=False, server_default=sa.text("false"))
    )
    op.execute(_TOLD)
    op.create_table(
        "customer_push",
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("wanted", sa.BigInteger(), nullable=False),
        sa.Column("hold_until", _INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name="fk_customer_push_account_id"),
        sa.PrimaryKeyConstraint("account_id", name="pk_customer_push"),
    )
    op.create_index("ix_customer_push_hold_until", "customer_push", ["hold_until"])
    op.create_table(
        "sweep",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("cursor", sa.Text(), nullable=False),
        sa.Column("next_time", _INSTANT, nullable=False),
        sa.Column("hold_until", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_sweep"),
    )


def downgrade() -> None:
    op.drop_table("sweep")
    op.drop_table("customer_push")
    for name in ("ended_told", "cancel_time_told", "trial_end_told", "cancel_reason"):
        op.drop_column("subscription", name)
    op.drop_index("ix_account_email", "account")
    for name in ("erase_time", "contact_verify_time", "import_time"):
        op.drop_column("account", name)
