"""How sensitive what a key asks is at the least."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add it; keys that are there say nothing of it."""
    op.add_column("keys", sa.Column("data_class", sa.Text))
