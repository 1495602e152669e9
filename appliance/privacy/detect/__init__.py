"""Finds what is personal in a text. Loaded in the processes of the detectors alone."""
