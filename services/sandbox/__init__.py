"""Runs untrusted programs, apart from everything. It holds no credentials: no bus, no database."""
