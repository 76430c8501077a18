"""The report of a run: its tables, its final status, and an HTML page made from the tables."""
