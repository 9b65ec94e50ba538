"""More kinds of messages: what overtakes what, whom quota's events are for, messages sent again, forgotten accounts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # With defaults: a replica of the release before may still add rows.
    op.add_column("messages", sa.Column("topic", sa.Text, server_default="", nullable=False))
    op.add_column("messages", sa.Column("rank", sa.Integer, server_default="0", nullable=False))
    op.add_column("messages", sa.Column("recipient_data", sa.LargeBinary, server_default="", nullable=False))
    op.add_column("messages", sa.Column("erased", sa.Boolean, server_default=sa.false(), nullable=False))
    op.add_column(
        "messages",
        sa.Column("due_since", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
    )
    op.execute(
        "UPDATE messages SET topic = subject_id, rank = CASE kind WHEN 'receipt' THEN 1 ELSE 0 END,"
        " due_since = create_time"
    )
    op.create_index("ix_messages_topic", "messages", ["topic"])
    op.create_table(
        "resends",
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("message_id", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("previous_state", sa.Text, nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("request_id", name="pk_resends"),
        sa.ForeignKeyConstraint(["message_id"], ["messages.id"], name="fk_resends_message_id"),
    )
    op.create_index("ix_resends_message_id", "resends", ["message_id", "create_time"])
    op.create_table(
        "erased_accounts",
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("erase_time", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("account_id", name="pk_erased_accounts"),
    )


def downgrade() -> None:
    op.drop_table("erased_accounts")
    op.drop_table("resends")
    op.drop_index("ix_messages_topic", "messages")
    for column in ("due_since", "erased", "recipient_data", "rank", "topic"):
        op.drop_column("messages", column)
