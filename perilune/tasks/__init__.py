"""Tasks whose problems are generated without end and whose answers a program can check."""
