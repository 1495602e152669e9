"""How good a model's answers are: golden sets, checks, and their results."""
