"""Stand-ins for the expensive parts of the house."""
