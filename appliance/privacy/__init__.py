"""May this leave? What is personal in a request, how it is hidden, and who says that it is hidden well enough."""
