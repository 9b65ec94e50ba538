"""Kill switches, read by the statement that locks and reads for a decision; quota's outbox."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_SWITCHES = """\
    RETURN QUERY
        SELECT 's'::"char", NULL::text, NULL::bigint, NULL::bigint, NULL::timestamptz, NULL::text, NULL::json,
               NULL::text, k.meter, NULL::bigint, NULL::bytea, NULL::timestamptz
        FROM kill_switch k WHERE k.enabled;
"""

# As in 0001, with the switches that are thrown (kind `s`, their meter; empty: all of them).
# Locks first, in a statement of its own, and only then looks at the clock and at the other tables: one statement
# would see those from before it waited for the lock. A key is looked for in the days of the last 48 hours.
_OPEN = """
CREATE OR REPLACE FUNCTION quota_open(ids text[], owners text[], keys text[])
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
-- switches
    RETURN QUERY
        SELECT 't'::"char", NULL::text, NULL::bigint, NULL::bigint, NULL::timestamptz, NULL::text, NULL::json,
               NULL::text, NULL::text, NULL::bigint, NULL::bytea, moment;
END
$$
"""


def upgrade() -> None:
    op.create_table(
        "kill_switch",
        sa.Column("meter", sa.Text, nullable=False),  # empty: every meter
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("change_time", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("meter", name="pk_kill_switch"),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("claim_until", sa.DateTime(timezone=True)),
        sa.Column("publish_time", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
    )
    op.create_index(
        "ix_outbox_published", "outbox", ["publish_time"], postgresql_where=sa.text("publish_time IS NOT NULL")
    )
    op.create_index("ix_outbox_unpublished", "outbox", ["id"], postgresql_where=sa.text("publish_time IS NULL"))
    op.execute(_OPEN.replace("-- switches\n", _SWITCHES))


def downgrade() -> None:
    # The function without the switches, as the release before left it.
    op.execute(_OPEN)
    op.drop_table("outbox")
    op.drop_table("kill_switch")
