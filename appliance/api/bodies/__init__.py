"""What callers may send: one model per operation, built so that nothing unknown gets through."""
