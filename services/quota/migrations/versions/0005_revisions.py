"""Revisions, by which a decision is verified as it is written; leases, and terms that accounts set themselves."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# Every writer of an account, its buckets or its leases adds one to `rev` under the account's lock.
_COLUMNS = """
ALTER TABLE account ADD COLUMN rev bigint NOT NULL DEFAULT 0, ADD COLUMN terms json NOT NULL DEFAULT '{}'
"""
_LEDGER = """
ALTER TABLE idem ADD COLUMN key_id text NOT NULL DEFAULT '', ADD COLUMN reversed boolean NOT NULL DEFAULT false
"""
# Written in the order of time, so a summary by ranges of pages finds what is recent and costs a write nothing.
_RECENT = "CREATE INDEX ix_idem_decide_time ON idem USING brin (decide_time) WITH (autosummarize = on)"
_LEASE = """
CREATE TABLE lease (
    account_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    meter text NOT NULL,
    reserved bigint NOT NULL,
    acquire_time timestamptz NOT NULL,
    expire_time timestamptz NOT NULL,
    key_id text NOT NULL,
    CONSTRAINT pk_lease PRIMARY KEY (account_id, id)
)
"""
# Accounts first, then what belongs to them: what changes in between shows in the revision when the decision is saved.
# With `locking` the locks come first, in a statement of its own: one statement would see the other tables from before
# it waited for the lock. A key is looked for in the days of the last 48 hours.
_READ = """
CREATE FUNCTION quota_read(ids text[], owners text[], keys text[], locking boolean)
RETURNS TABLE (
    kind "char", id text, rev bigint, version bigint, plan_id bigint, anchor timestamptz, "interval" text,
    counters text, terms text, name text, meter text, amount bigint, since timestamptz, until timestamptz,
    key_id text, answer bytea, reversed boolean
)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    moment timestamptz;
    oldest date;
    newest date;
BEGIN
    IF locking THEN
        RETURN QUERY
            SELECT 'a'::"char", a.id, a.rev, a.version, a.plan_id, a.anchor, a."interval", a.counters::text,
                   a.terms::text, NULL::text, NULL::text, NULL::bigint, NULL::timestamptz, NULL::timestamptz,
                   NULL::text, NULL::bytea, NULL::boolean
            FROM account a WHERE a.id = ANY (ids) ORDER BY a.id FOR NO KEY UPDATE;
    ELSE
        RETURN QUERY
            SELECT 'a'::"char", a.id, a.rev, a.version, a.plan_id, a.anchor, a."interval", a.counters::text,
                   a.terms::text, NULL::text, NULL::text, NULL::bigint, NULL::timestamptz, NULL::timestamptz,
                   NULL::text, NULL::bytea, NULL::boolean
            FROM account a WHERE a.id = ANY (ids);
    END IF;
    moment := clock_timestamp();
    RETURN QUERY
        SELECT 'l'::"char", l.account_id, NULL::bigint, NULL::bigint, NULL::bigint, NULL::timestamptz, NULL::text,
               NULL::text, NULL::text, l.id, l.meter, l.reserved, l.acquire_time, l.expire_time,
               l.key_id, NULL::bytea, NULL::boolean
        FROM lease l WHERE l.account_id = ANY (ids);
    IF cardinality(keys) > 0 THEN
        oldest := (moment AT TIME ZONE 'UTC')::date - 2;
        newest := oldest + 3;
        RETURN QUERY
            SELECT 'k'::"char", asked.owner, NULL::bigint, NULL::bigint, NULL::bigint, NULL::timestamptz, NULL::text,
                   NULL::text, NULL::text, asked.key, found.meter, found.amount, found.decide_time, NULL::timestamptz,
                   found.key_id, found.answer, found.reversed
            FROM unnest(owners, keys) AS asked (owner, key),
                 LATERAL (
                     SELECT i.meter, i.amount, i.decide_time, i.key_id, i.answer, i.reversed FROM idem i
                     WHERE i.account_id = asked.owner AND i.key = asked.key AND i.day BETWEEN oldest AND newest
                     LIMIT 1
                 ) AS found;
    END IF;
    RETURN QUERY
        SELECT 's'::"char", NULL::text, NULL::bigint, NULL::bigint, NULL::bigint, NULL::timestamptz, NULL::text,
               NULL::text, NULL::text, NULL::text, k.meter, NULL::bigint, NULL::timestamptz, NULL::timestamptz,
               NULL::text, NULL::bytea, NULL::boolean
        FROM kill_switch k WHERE k.enabled;
    RETURN QUERY
        SELECT 't'::"char", NULL::text, NULL::bigint, NULL::bigint, NULL::bigint, NULL::timestamptz, NULL::text,
               NULL::text, NULL::text, NULL::text, NULL::text, NULL::bigint, moment, NULL::timestamptz,
               NULL::text, NULL::bytea, NULL::boolean;
END
$$
"""
# Verifies what the decisions stood on, under the locks of the accounts that change, and only then writes. `verdict`:
# o saved · s accounts `stale` have changed meanwhile · w kill switches have · c `moment` (NULL: not asked) is off by a
# second · k a key was used before. Anything but o has written nothing.
# Lists come as one text, their elements apart by U+001D, which no element holds; NULL is the empty list: the
# caller joins a text for less than its driver encodes an array, element by element. Ids and their revisions are in the
# order of the ids; `answers` are hexadecimal; in `key_ids`, which may be empty, U+001F stands for none.
_SAVE = """
CREATE FUNCTION quota_save(
    OUT verdict "char", OUT at timestamptz, OUT stale text[],
    lane_id text, next_seq bigint, moment timestamptz, switches text,
    seen_ids text, seen_revs text, owners text, keys text,
    changed_ids text, changed_revs text, new_counters text, new_terms text,
    grant_accounts text, grant_keys text, grant_meters text, grant_amounts text, grant_answers text,
    grant_key_ids text, today date, decided timestamptz,
    bucket_accounts text DEFAULT NULL, bucket_names text DEFAULT NULL, bucket_key_ids text DEFAULT NULL,
    bucket_logs text DEFAULT NULL,
    lease_accounts text DEFAULT NULL, lease_ids text DEFAULT NULL, lease_meters text DEFAULT NULL,
    lease_reserved text DEFAULT NULL, lease_acquired timestamptz[] DEFAULT NULL,
    lease_expires timestamptz[] DEFAULT NULL, lease_key_ids text DEFAULT NULL,
    ended_accounts text DEFAULT NULL, ended_ids text DEFAULT NULL,
    reversed_accounts text DEFAULT NULL, reversed_keys text DEFAULT NULL,
    event_ids text DEFAULT NULL, event_types text DEFAULT NULL, event_subjects text DEFAULT NULL,
    event_accounts text DEFAULT NULL, event_data text DEFAULT NULL
)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    sep CONSTANT text := chr(29);
    none CONSTANT text := chr(31);
    changing text[] := string_to_array(changed_ids, sep);
    looked_at text[] := string_to_array(seen_ids, sep);
    revs text[];
    oldest date;
BEGIN
    verdict := 'o';
    IF changing IS NOT NULL THEN
        SELECT array_agg(l.rev::text ORDER BY l.id) INTO revs
        FROM (SELECT a.id, a.rev FROM account a WHERE a.id = ANY (changing) ORDER BY a.id FOR NO KEY UPDATE) AS l;
        IF revs IS DISTINCT FROM string_to_array(changed_revs, sep) THEN
            verdict := 's';
        END IF;
    END IF;
    at := clock_timestamp();
    IF looked_at IS NOT NULL THEN
        SELECT array_agg(a.rev::text ORDER BY a.id) INTO revs FROM account a WHERE a.id = ANY (looked_at);
        IF revs IS DISTINCT FROM string_to_array(seen_revs, sep) THEN
            verdict := 's';
        END IF;
    END IF;
    IF verdict = 's' THEN
        SELECT array_agg(s.id) INTO stale
        FROM unnest(
            looked_at || changing, string_to_array(seen_revs, sep) || string_to_array(changed_revs, sep)
        ) AS s (id, rev)
        WHERE NOT EXISTS (SELECT FROM account a WHERE a.id = s.id AND a.rev = s.rev::bigint);
        RETURN;
    END IF;
    IF switches IS DISTINCT FROM (
        SELECT string_agg(k.meter || sep, '' ORDER BY k.meter COLLATE "C") FROM kill_switch k WHERE k.enabled
    ) THEN
        verdict := 'w';
        RETURN;
    END IF;
    IF abs(extract(epoch FROM at - moment)) > 1 THEN
        verdict := 'c';
        RETURN;
    END IF;
    IF keys IS NOT NULL THEN
        oldest := (at AT TIME ZONE 'UTC')::date - 2;
        PERFORM FROM unnest(string_to_array(owners, sep), string_to_array(keys, sep)) AS asked (owner, key),
            LATERAL (
                SELECT FROM idem i
                WHERE i.account_id = asked.owner AND i.key = asked.key AND i.day BETWEEN oldest AND oldest + 3
                LIMIT 1
            ) AS found;
        IF FOUND THEN
            verdict := 'k';
            RETURN;
        END IF;
    END IF;
    IF changing IS NULL THEN
        RETURN; -- refusals: nothing to write, nothing to wait for
    END IF;
    WITH counted AS (
        UPDATE account a SET counters = c.counters::json, terms = c.terms::json, rev = a.rev + 1
        FROM unnest(changing, string_to_array(new_counters, sep), string_to_array(new_terms, sep))
             AS c (id, counters, terms)
        WHERE a.id = c.id
    )
    INSERT INTO idem (account_id, key, day, meter, amount, decide_time, answer, key_id)
    SELECT g.account_id, g.key, today, g.meter, g.amount::bigint, decided, decode(g.answer, 'hex'),
           coalesce(g.key_id, '')
    FROM unnest(
        string_to_array(grant_accounts, sep), string_to_array(grant_keys, sep), string_to_array(grant_meters, sep),
        string_to_array(grant_amounts, sep), string_to_array(grant_answers, sep),
        string_to_array(grant_key_ids, sep, none)
    ) AS g (account_id, key, meter, amount, answer, key_id);
    IF bucket_accounts IS NOT NULL THEN
        INSERT INTO bucket (account_id, name, key_id, log)
        SELECT b.account_id, b.name, coalesce(b.key_id, ''), decode(b.log, 'hex')
        FROM unnest(
            string_to_array(bucket_accounts, sep), string_to_array(bucket_names, sep),
            string_to_array(bucket_key_ids, sep, none), string_to_array(bucket_logs, sep)
        ) AS b (account_id, name, key_id, log)
        ON CONFLICT (account_id, name, key_id) DO UPDATE SET log = excluded.log, use_time = clock_timestamp();
    END IF;
    IF lease_accounts IS NOT NULL THEN
        INSERT INTO lease (account_id, id, meter, reserved, acquire_time, expire_time, key_id)
        SELECT l.account_id, l.id, l.meter, l.reserved::bigint, l.acquired, l.expires, coalesce(l.key_id, '')
        FROM unnest(
            string_to_array(lease_accounts, sep), string_to_array(lease_ids, sep), string_to_array(lease_meters, sep),
            string_to_array(lease_reserved, sep), lease_acquired, lease_expires,
            string_to_array(lease_key_ids, sep, none)
        ) AS l (account_id, id, meter, reserved, acquired, expires, key_id)
        ON CONFLICT (account_id, id) DO UPDATE SET expire_time = excluded.expire_time;
    END IF;
    IF ended_accounts IS NOT NULL THEN
        DELETE FROM lease l
        USING unnest(string_to_array(ended_accounts, sep), string_to_array(ended_ids, sep)) AS e (account_id, id)
        WHERE l.account_id = e.account_id AND l.id = e.id;
    END IF;
    IF reversed_accounts IS NOT NULL THEN
        oldest := (at AT TIME ZONE 'UTC')::date - 2;
        UPDATE idem i SET reversed = true
        FROM unnest(string_to_array(reversed_accounts, sep), string_to_array(reversed_keys, sep))
             AS r (account_id, key)
        WHERE i.account_id = r.account_id AND i.key = r.key AND i.day BETWEEN oldest AND oldest + 3;
    END IF;
    IF event_ids IS NOT NULL THEN
        INSERT INTO outbox (id, type, subject, account_id, data, create_time)
        SELECT e.id, e.type, e.subject, e.account_id, decode(e.data, 'hex'), at
        FROM unnest(
            string_to_array(event_ids, sep), string_to_array(event_types, sep), string_to_array(event_subjects, sep),
            string_to_array(event_accounts, sep), string_to_array(event_data, sep)
        ) AS e (id, type, subject, account_id, data);
    END IF;
    UPDATE lane SET seq = next_seq, use_time = at WHERE id = lane_id;
    IF NOT FOUND THEN
        -- Without its row a lost answer could not be resolved. The class of connection errors: the lane begins anew.
        RAISE EXCEPTION 'the lane''s row is gone' USING ERRCODE = 'connection_exception';
    END IF;
END
$$
"""


def upgrade() -> None:
    op.execute(_COLUMNS)
    op.execute(_LEDGER)
    op.execute(_RECENT)
    op.execute(_LEASE)
    # Logs have their sum before them from now on. What the last minute used is forgotten with those without.
    op.execute("TRUNCATE bucket")
    op.create_index("ix_lease_expire_time", "lease", ["expire_time"])
    # How much of a meter was announced, so that only what changed is announced again.
    op.create_table(
        "usage_announced",
        sa.Column("account_id", sa.Text(collation="C"), nullable=False),
        sa.Column("meter", sa.Text, nullable=False),
        sa.Column("period_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("period_end", sa.DateTime(timezone=True)),
        sa.Column("used", sa.BigInteger, nullable=False),
        sa.Column("final", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("account_id", "meter", "period_start", name="pk_usage_announced"),
    )
    op.create_index("ix_usage_announced_open", "usage_announced", ["period_end"], postgresql_where=sa.text("NOT final"))
    # Not kept beside the new ones: a process that still calls it would change rows and not their revision.
    op.execute("DROP FUNCTION quota_open")
    op.execute(_READ)
    op.execute(_SAVE)


def downgrade() -> None:
    raise RuntimeError("leases and terms would be lost: restore a backup of before instead")
