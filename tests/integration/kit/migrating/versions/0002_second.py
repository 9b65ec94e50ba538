"""Another table, with a row: applying it twice would show."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("CREATE TABLE second (id int)")
    op.execute("INSERT INTO second VALUES (1)")
