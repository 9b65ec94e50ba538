"""What was granted in the last window of a rate, per account or per API key."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# Rows beside the account's, because an account may have many keys and a decision writes only those it used. Read and
# written under the account's lock. `log` is the domain's (`services.quota.domain.rate.pack`); it is not compressed:
# it is rewritten with every grant.
_BUCKET = """
CREATE TABLE bucket (
    account_id text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    key_id text COLLATE "C" NOT NULL,
    log bytea STORAGE EXTERNAL NOT NULL,
    use_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT pk_bucket PRIMARY KEY (account_id, name, key_id)
) WITH (fillfactor = 50)
"""


def upgrade() -> None:
    op.execute(_BUCKET)


def downgrade() -> None:
    op.drop_table("bucket")
