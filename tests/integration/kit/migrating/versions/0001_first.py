"""A table."""

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.execute("CREATE TABLE first (id int)")
    op.execute("SELECT pg_sleep(0.3)")  # long enough for a second process to come while this one migrates
