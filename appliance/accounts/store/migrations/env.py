"""What Alembic runs: the steps, in the transaction of the connection that it was given."""

from alembic import context

from appliance.accounts.store.migrations import TABLE
from appliance.accounts.store.schema import tables

context.configure(connection=context.config.attributes["connection"], target_metadata=tables, version_table=TABLE)
context.run_migrations()
