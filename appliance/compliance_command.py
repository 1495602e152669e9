"""`appliance compliance ...`: the report for whoever audits."""
