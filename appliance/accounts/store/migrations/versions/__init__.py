"""One module for each step; Alembic runs them in the order that they name."""
