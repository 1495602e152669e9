"""Models on disk: what a card says, how weights are prepared from it, and whether they still are those."""
