"""notify's tables. All times in them are the database's."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    false,
    func,
    literal_column,
)

from services.kit.database import new_metadata
from services.kit.inbox import inbox_table

# The states that need work or an eye. Nearly all rows are in none of them, so this index stays small.
OPEN = "state IN ('pending', 'sending', 'unknown', 'dead')"

metadata = new_metadata()
inbox = inbox_table(metadata)
messages = Table(
    "messages",
    metadata,
    Column("id", Text, primary_key=True),
    Column("account_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("subject_id", Text, nullable=False),
    Column("recipient", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempt_count", Integer, nullable=False, server_default="0"),
    Column("next_attempt_time", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("claim", Text),
    Column("claim_until", DateTime(timezone=True)),
    Column("error", Text, nullable=False, server_default=""),
    Column("withdrawn", Text, nullable=False, server_default=""),  # why it should not be tried again
    Column("message_id", Text, nullable=False, unique=True),
    Column("event_type", Text, nullable=False),
    Column("event_data", LargeBinary, nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("send_time", DateTime(timezone=True)),
    Column("topic", Text, nullable=False, server_default=""),
    Column("rank", Integer, nullable=False, server_default="0"),
    Column("recipient_data", LargeBinary, nullable=False, server_default=""),
    Column("erased", Boolean, nullable=False, server_default=false()),
    # From when on its tries count: its creation, or that it was to be sent again.
    Column("due_since", DateTime(timezone=True), nullable=False, server_default=func.now()),
    UniqueConstraint("kind", "subject_id", name="uq_messages_kind_subject"),
    Index("ix_messages_due", "next_attempt_time", postgresql_where=literal_column("state = 'pending'")),
    Index("ix_messages_open", "state", postgresql_where=literal_column(OPEN)),
    Index("ix_messages_account", "account_id", "id"),
    Index("ix_messages_topic", "topic"),
)
resends = Table(
    "resends",
    metadata,
    Column("request_id", Text, primary_key=True),
    Column("message_id", Text, ForeignKey("messages.id", name="fk_resends_message_id"), nullable=False),
    Column("actor", Text, nullable=False),
    Column("previous_state", Text, nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Index("ix_resends_message_id", "message_id", "create_time"),
)
# Whose personal data must not come back with an event that was late.
erased_accounts = Table(
    "erased_accounts",
    metadata,
    Column("account_id", Text, primary_key=True),
    Column("erase_time", DateTime(timezone=True), nullable=False, server_default=func.now()),
)
