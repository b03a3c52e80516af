"""Customers have an address, and none twice."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("customer", sa.Column("email", sa.Text))
    op.execute("UPDATE customer SET email = lower(name) || '@example.test'")
    op.alter_column("customer", "email", nullable=False)
    op.create_index("customer_email", "customer", ["email"], unique=True)


def downgrade() -> None:
    op.drop_index("customer_email", "customer")
    op.drop_column("customer", "email")
