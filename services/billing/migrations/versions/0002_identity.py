"""Users, memberships, sessions and outside identities; how keys end and for whom they are; the audit log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# Who signed up owns the account. That the address is theirs is proved by signing in, so nobody is verified here.
_USERS = """
INSERT INTO app_user (id, email, create_time)
SELECT 'usr_' || replace(gen_random_uuid()::text, '-', ''), lower(email), min(create_time)
FROM account WHERE email <> '' GROUP BY lower(email)
"""
_OWNERS = """
INSERT INTO membership (account_id, user_id, role, create_time)
SELECT account.id, app_user.id, 'owner', account.create_time
FROM account JOIN app_user ON app_user.email = lower(account.email)
"""
_KEYS = """
UPDATE api_key SET user_id = app_user.id
FROM account JOIN app_user ON app_user.email = lower(account.email) WHERE account.id = api_key.account_id
"""


def upgrade() -> None:
    op.create_table(
        "app_user",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("verify_time", sa.DateTime(timezone=True)),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_app_user"),
        sa.UniqueConstraint("email", name="uq_app_user_email"),
    )
    op.create_table(
        "membership",
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name="fk_membership_account_id"),
        sa.ForeignKeyConstraint(["user_id"], ["app_user.id"], name="fk_membership_user_id"),
        sa.PrimaryKeyConstraint("account_id", "user_id", name="pk_membership"),
    )
    op.create_index("ix_membership_user_id", "membership", ["user_id"])
    op.create_table(
        "login_session",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expire_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("end_time", sa.DateTime(timezone=True)),
        sa.ForeignKeyConstraint(["user_id"], ["app_user.id"], name="fk_login_session_user_id"),
        sa.PrimaryKeyConstraint("id", name="pk_login_session"),
        sa.UniqueConstraint("hash", name="uq_login_session_hash"),
    )
    op.create_index("ix_login_session_user_id", "login_session", ["user_id"])
    op.create_index("ix_login_session_expire_time", "login_session", ["expire_time"])
    op.create_table(
        "outside_identity",
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("external_id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name="fk_outside_identity_account_id"),
        sa.PrimaryKeyConstraint("issuer", "external_id", name="pk_outside_identity"),
    )
    op.create_index("ix_outside_identity_account_id", "outside_identity", ["account_id"])
    op.create_table(
        "audit_log",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("actor_kind", sa.Text(), nullable=False),
        sa.Column("actor_id", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("details", JSONB(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("delete_time", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name="fk_audit_log_account_id"),
        sa.PrimaryKeyConstraint("id", name="pk_audit_log"),
    )
    op.create_index("ix_audit_log_account", "audit_log", ["account_id", "id"])
    op.create_index("ix_audit_log_delete_time", "audit_log", ["delete_time"])
    op.add_column("api_key", sa.Column("successor_id", sa.Text()))
    op.add_column("api_key", sa.Column("user_id", sa.Text()))
    op.create_foreign_key("fk_api_key_successor_id", "api_key", "api_key", ["successor_id"], ["id"])
    op.create_foreign_key("fk_api_key_user_id", "api_key", "app_user", ["user_id"], ["id"])
    op.create_unique_constraint("uq_api_key_successor_id", "api_key", ["successor_id"])
    op.execute(_USERS)
    op.execute(_OWNERS)
    op.execute(_KEYS)


def downgrade() -> None:
    op.drop_column("api_key", "user_id")
    op.drop_column("api_key", "successor_id")
    for table in ("audit_log", "outside_identity", "login_session", "membership", "app_user"):
        op.drop_table(table)
