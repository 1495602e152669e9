"""Where keys and books are kept: SQLite in the state folder, or a PostgreSQL in the house. The only SQL there is."""

from appliance.accounts.store.store import Store
from appliance.accounts.store.transaction import Group, Look

__all__ = ["Group", "Look", "Store"]
