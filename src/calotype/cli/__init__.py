"""The command line: one file per verb; each parses, calls and shows, and holds no mathematics."""
