"""Data files: rows, and what a row says."""
