"""The audit log: what was asked and done, on record before it happens, chained, signed, and erasable by person."""
