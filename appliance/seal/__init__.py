"""Confinement by the kernel: what is applied, what shows it, and what is tried against it."""
