"""Messages, and the inbox of billing's events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "inbox",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("receive_time", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_inbox"),
    )
    op.create_index("ix_inbox_receive_time", "inbox", ["receive_time"])
    op.create_table(
        "messages",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("subject_id", sa.Text, nullable=False),
        sa.Column("recipient", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempt_count", sa.Integer, server_default="0", nullable=False),
        sa.Column("next_attempt_time", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("claim", sa.Text),
        sa.Column("claim_until", sa.DateTime(timezone=True)),
        sa.Column("error", sa.Text, server_default="", nullable=False),
        sa.Column("withdrawn", sa.Text, server_default="", nullable=False),
        sa.Column("message_id", sa.Text, nullable=False),
        sa.Column("event_type", sa.Text, nullable=False),
        sa.Column("event_data", sa.LargeBinary, nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("send_time", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="pk_messages"),
        sa.UniqueConstraint("message_id", name="uq_messages_message_id"),
        sa.UniqueConstraint("kind", "subject_id", name="uq_messages_kind_subject"),
        sa.CheckConstraint(
            "state IN ('pending', 'sending', 'sent', 'dead', 'unknown', 'skipped')", name="ck_messages_state"
        ),
    )
    op.create_index("ix_messages_due", "messages", ["next_attempt_time"], postgresql_where=sa.text("state = 'pending'"))
    op.create_index(
        "ix_messages_open",
        "messages",
        ["state"],
        postgresql_where=sa.text("state IN ('pending', 'sending', 'unknown', 'dead')"),
    )
    op.create_index("ix_messages_account", "messages", ["account_id", "id"])


def downgrade() -> None:
    op.drop_table("messages")
    op.drop_table("inbox")
