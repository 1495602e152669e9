"""Cleared requests to providers outside the house, and their answers back in the caller's dialect."""
