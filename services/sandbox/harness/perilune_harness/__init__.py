"""The Python half of the harness: it runs inside a job, and imports nothing but the standard library."""
