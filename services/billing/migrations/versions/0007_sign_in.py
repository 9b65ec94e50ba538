"""Sign-in links, the count of tries to sign in, and sessions that are an API key."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "sign_in_link",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("browser_hash", sa.LargeBinary(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expire_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("use_time", sa.DateTime(timezone=True)),
        sa.ForeignKeyConstraint(["user_id"], ["app_user.id"], name="fk_sign_in_link_user_id"),
        sa.PrimaryKeyConstraint("id", name="pk_sign_in_link"),
        sa.UniqueConstraint("hash", name="uq_sign_in_link_hash"),
    )
    op.create_index("ix_sign_in_link_user_id", "sign_in_link", ["user_id"])
    op.create_index("ix_sign_in_link_expire_time", "sign_in_link", ["expire_time"])
    op.create_table(
        "sign_in_attempt",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("remote_address", sa.Text(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sign_in_attempt"),
    )
    op.create_index("ix_sign_in_attempt_email", "sign_in_attempt", ["email", "create_time"])
    op.create_index("ix_sign_in_attempt_remote_address", "sign_in_attempt", ["remote_address", "create_time"])
    op.create_table(
        "key_session",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expire_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("end_time", sa.DateTime(timezone=True)),
        sa.ForeignKeyConstraint(["key_id"], ["api_key.id"], name="fk_key_session_key_id"),
        sa.PrimaryKeyConstraint("id", name="pk_key_session"),
        sa.UniqueConstraint("hash", name="uq_key_session_hash"),
    )
    op.create_index("ix_key_session_key_id", "key_session", ["key_id"])
    op.create_index("ix_key_session_expire_time", "key_session", ["expire_time"])


def downgrade() -> None:
    for table in ("key_session", "sign_in_attempt", "sign_in_link"):
        op.drop_table(table)
