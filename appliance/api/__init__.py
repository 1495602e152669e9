"""What a caller sees: routes, bodies, errors, and the hardened HTTP underneath."""
