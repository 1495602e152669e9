"""Who asks: keys today, roles and budgets to come."""
