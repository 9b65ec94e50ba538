"""From when on a key is refused: it was revoked, or a rotation's overlap runs out."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("api_key", sa.Column("end_time", sa.DateTime(timezone=True)))


def downgrade() -> None:
    op.drop_column("api_key", "end_time")
