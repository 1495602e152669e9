"""The chapters of a report: each turns facts into blocks, in the words of one language."""
