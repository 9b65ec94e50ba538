"""Accounts are read with the logs of their rates: one trip less for every batch with an account that is not known."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# After the accounts, in a statement of its own, as everything else that belongs to them. The one without logs stays:
# processes of the release before call it.
_READ = """
CREATE FUNCTION quota_read(
    ids text[], owners text[], keys text[], locking boolean,
    bucket_accounts text[], bucket_names text[], bucket_key_ids text[]
)
RETURNS TABLE (
    kind "char", id text, rev bigint, version bigint, plan_id bigint, anchor timestamptz, "interval" text,
    counters text, terms text, name text, meter text, amount bigint, since timestamptz, until timestamptz,
    key_id text, answer bytea, reversed boolean
)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT * FROM quota_read(ids, owners, keys, locking);
    IF cardinality(bucket_accounts) > 0 THEN
        RETURN QUERY
            SELECT 'b'::"char", asked.account_id, NULL::bigint, NULL::bigint, NULL::bigint, NULL::timestamptz,
                   NULL::text, NULL::text, NULL::text, asked.name, NULL::text, NULL::bigint, NULL::timestamptz,
                   NULL::timestamptz, asked.key_id, found.log, NULL::boolean
            FROM unnest(bucket_accounts, bucket_names, bucket_key_ids) AS asked (account_id, name, key_id),
                 LATERAL (
                     SELECT b.log FROM bucket b
                     WHERE b.account_id = asked.account_id AND b.name = asked.name AND b.key_id = asked.key_id LIMIT 1
                 ) AS found;
    END IF;
END
$$
"""


def upgrade() -> None:
    op.execute(_READ)


def downgrade() -> None:
    op.execute("DROP FUNCTION quota_read(text[], text[], text[], boolean, text[], text[], text[])")
