"""Plans, accounts with their counters, the ledger by idempotency key, lanes, and the inbox of billing's events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Entitlement and counters share a row, so the locked row is always current. Half of each page stays free and no
# changing column is indexed: updates are HOT and need no vacuum to keep up.
_ACCOUNT = """
CREATE TABLE account (
    id text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    plan_id bigint NOT NULL,
    status text NOT NULL,
    anchor timestamptz,
    "interval" text NOT NULL,
    change_time timestamptz,
    counters json NOT NULL DEFAULT '{}',
    CONSTRAINT pk_account PRIMARY KEY (id),
    CONSTRAINT fk_account_plan_id FOREIGN KEY (plan_id) REFERENCES plan (id)
) WITH (fillfactor = 50)
"""

# One line per grant, by day: a day is dropped as a table. `answer` is the Decision as the caller was told.
_IDEM = """
CREATE TABLE idem (
    account_id text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    day date NOT NULL,
    meter text NOT NULL,
    amount bigint NOT NULL,
    decide_time timestamptz NOT NULL,
    answer bytea NOT NULL,
    CONSTRAINT pk_idem PRIMARY KEY (account_id, key, day)
) PARTITION BY RANGE (day)
"""

# Locks first, in a statement of its own, and only then looks at the clock and at the other tables: one statement
# would see those from before it waited for the lock. A key is looked for in the days of the last 48 hours.
_OPEN = """
CREATE FUNCTION quota_open(ids text[], owners text[], keys text[])
RETURNS TABLE (
    kind "char", id text, plan_id bigint, version bigint, anchor timestamptz, "interval" text, counters json,
    key text, meter text, amount bigint, answer bytea, at timestamptz
)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    moment timestamptz;
    oldest date;
    newest date;
BEGIN
    RETURN QUERY
        SELECT 'a'::"char", a.id, a.plan_id, a.version, a.anchor, a."interval", a.counters,
               NULL::text, NULL::text, NULL::bigint, NULL::bytea, NULL::timestamptz
        FROM account a WHERE a.id = ANY (ids) ORDER BY a.id FOR NO KEY UPDATE;
    moment := clock_timestamp();
    IF cardinality(keys) > 0 THEN
        oldest := (moment AT TIME ZONE 'UTC')::date - 2;
        newest := oldest + 3;
        RETURN QUERY
            SELECT 'k'::"char", asked.owner, NULL::bigint, NULL::bigint, NULL::timestamptz, NULL::text, NULL::json,
                   asked.key, found.meter, found.amount, found.answer, NULL::timestamptz
            FROM unnest(owners, keys) AS asked (owner, key),
                 LATERAL (
                     SELECT i.meter, i.amount, i.answer FROM idem i
                     WHERE i.account_id = asked.owner AND i.key = asked.key AND i.day BETWEEN oldest AND newest
                     LIMIT 1
                 ) AS found;
    END IF;
    RETURN QUERY
        SELECT 't'::"char", NULL::text, NULL::bigint, NULL::bigint, NULL::timestamptz, NULL::text, NULL::json,
               NULL::text, NULL::text, NULL::bigint, NULL::bytea, moment;
END
$$
"""

_COUNTER = """
CREATE VIEW counter AS
SELECT a.id AS account_id, m.key AS meter, p.key AS period,
       to_timestamp((p.value ->> 0)::bigint) AS start_time, (p.value ->> 1)::bigint AS used
FROM account a, json_each(a.counters) m, json_each(m.value) p
"""


def upgrade() -> None:
    op.create_table(
        "inbox",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("receive_time", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_inbox"),
    )
    op.create_index("ix_inbox_receive_time", "inbox", ["receive_time"])
    # What accounts of one tier share, stored once under its content's hash and never changed.
    op.create_table(
        "plan",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_plan"),
        sa.UniqueConstraint("hash", name="uq_plan_hash"),
    )
    op.execute(_ACCOUNT)
    op.execute(_IDEM)
    # `seq` grows with every batch that a lane commits: after a lost answer it tells whether the commit happened.
    op.execute(
        'CREATE TABLE lane (id text COLLATE "C" NOT NULL CONSTRAINT pk_lane PRIMARY KEY, seq bigint NOT NULL,'
        " use_time timestamptz NOT NULL DEFAULT now()) WITH (fillfactor = 10)"
    )
    op.create_table(
        "place",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("token", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_place"),
    )
    op.execute(_OPEN)
    op.execute(_COUNTER)


def downgrade() -> None:
    op.execute("DROP VIEW counter")
    op.execute("DROP FUNCTION quota_open")
    for table in ("place", "lane", "idem", "account", "plan", "inbox"):
        op.drop_table(table)
