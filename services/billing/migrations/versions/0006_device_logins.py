"""Logins of programs by a code that a person approves."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "device_login",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("device_hash", sa.LargeBinary(), nullable=False),
        sa.Column("user_hash", sa.LargeBinary(), nullable=False),
        sa.Column("client_name", sa.Text(), nullable=False),
        sa.Column("remote_address", sa.Text(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expire_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("interval", sa.Interval(), nullable=False),
        sa.Column("poll_time", sa.DateTime(timezone=True)),
        sa.Column("user_id", sa.Text()),
        sa.Column("account_id", sa.Text()),
        sa.Column("approve_time", sa.DateTime(timezone=True)),
        sa.Column("deny_time", sa.DateTime(timezone=True)),
        sa.Column("use_time", sa.DateTime(timezone=True)),
        sa.ForeignKeyConstraint(["user_id"], ["app_user.id"], name="fk_device_login_user_id"),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name="fk_device_login_account_id"),
        sa.PrimaryKeyConstraint("id", name="pk_device_login"),
        sa.UniqueConstraint("device_hash", name="uq_device_login_device_hash"),
        sa.UniqueConstraint("user_hash", name="uq_device_login_user_hash"),
    )
    op.create_index("ix_device_login_expire_time", "device_login", ["expire_time"])
    op.create_index("ix_device_login_remote_address", "device_login", ["remote_address", "create_time"])
    op.create_table(
        "device_code_miss",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["app_user.id"], name="fk_device_code_miss_user_id"),
    )
    op.create_index("ix_device_code_miss_user", "device_code_miss", ["user_id", "create_time"])
    op.create_index("ix_device_code_miss_create_time", "device_code_miss", ["create_time"])


def downgrade() -> None:
    op.drop_table("device_code_miss")
    op.drop_table("device_login")
